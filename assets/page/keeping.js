/* Conversations are kept in this browser (IndexedDB), with their pictures scaled down. An entry is
   {key, tab, title, changed, record, files}; `record` is what vlm/chat/records.py writes, `files` are blobs by their paths. */

const KEPT_SIDE = 1024;  // pixels
const UNHEARD = "Spoken question";  // the title until the words are known
const LEAVING = 5000;  // milliseconds that an answer has to stop before the tab shows something else

page.store = (() => {
  const opened = new Promise((resolve, reject) => {
    const request = indexedDB.open("ask-a-picture", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("conversations", {keyPath: "key"});
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  opened.catch(() => {});  // a private window may refuse: then nothing is kept
  const run = async (mode, ask) => {
    const transaction = (await opened).transaction("conversations", mode);
    return new Promise((resolve, reject) => {
      const request = ask(transaction.objectStore("conversations"));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error || request.error);  // also for want of room
    });
  };
  const others = new BroadcastChannel("ask-a-picture");  // the other tabs of this browser, whose lists follow
  others.onmessage = () => page.showList();
  const write = async ask => {
    await run("readwrite", ask);
    others.postMessage("changed");
  };
  return {
    all: () => run("readonly", store => store.getAll()),
    get: key => run("readonly", store => store.get(key)),
    put: entry => write(store => store.put(entry)),
    delete: key => write(store => store.delete(key)),
    clear: () => write(store => store.clear()),
  };
})();

const NO_ROOM = "There is no room in this browser to keep more conversations. Delete some, or save them as files first.";
const NOT_KEPT = "This browser keeps no conversations, as in a private window: they are gone with this page.";
const isNoRoom = problem => problem?.name === "QuotaExceededError";

page.asked = exchange => [exchange.question.trim(), exchange.answer?.transcript].filter(Boolean).join(" ");

/* Its first question, as it is shown: one that was edited is its title too. */
const titleOf = record => page.asked(wayShown(record)[0] || record.exchanges[0]).slice(0, 80) || UNHEARD;

const pathsIn = record => record.exchanges.flatMap(each => [...each.pictures, ...(each.recording ? [each.recording] : [])]);

/* What a record's files are, of which a tab has those that it opened or kept before. */
async function filesOf(tab, record) {
  const files = {};
  for (const path of new Set(pathsIn(record))) {
    const blob = tab.files[path] || await fetched(path);
    if (blob) files[path] = blob;
  }
  return files;
}

/* The file as it is kept; nothing where the server has it no more. */
async function fetched(path) {
  const answer = await fetch(`gradio_api/file=${path.split("/").map(encodeURIComponent).join("/")}`).catch(() => null);
  if (!answer?.ok) return null;
  const blob = await answer.blob();
  return blob.type.startsWith("image/") ? page.scaled(blob, KEPT_SIDE) : blob;
}

/* What tells whether more has been said; the paths of files are others after each opening. */
const lengths = record => record.exchanges.map(each => each.answer?.text.length ?? -1).join();

/* Another tab of the browser may change or delete a conversation that this one shows. What is said here afterwards is kept
   as a conversation of its own, so that neither tab writes over the other. */
const known = {};   // key -> {changed, said} of the entry as this tab read or wrote it last
const deleted = new Set();  // keys
const parted = {};  // key -> the key under which this tab went on; the server still has the first

const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), each => each.toString(16).padStart(2, "0")).join("");
const know = entry => { known[entry.key] = {changed: entry.changed, said: lengths(entry.record)}; };

async function keep(tab, record, files) {
  const {name} = tab;
  if (!record.key) return inTab.remove(`shown ${name}`);
  while (parted[record.key]) record.key = parted[record.key];
  if (deleted.has(record.key)) return;  // its files came late
  const before = await page.store.get(record.key), seen = known[record.key];
  if (seen && seen.changed !== before?.changed) {
    if (!record.exchanges.length || seen.said === lengths(record)) return;
    record.key = parted[record.key] = newKey();
  }
  if (!record.exchanges.length) {
    delete known[record.key];
    return page.store.delete(record.key).then(page.showList);
  }
  if (tab.record === record) {  // else it shows another by now
    inTab.set(`shown ${name}`, record.key);
    tab.files = files;
  }
  const isRenamed = before && before.title !== titleOf(before.record);
  const title = isRenamed ? before.title : titleOf(record);
  const changed = before && lengths(before.record) === lengths(record) ? before.changed : Date.now();
  const kept = {};  // a file that the server has no more stays as it was
  for (const path of pathsIn(record)) {
    const blob = files[path] || before?.files[path];
    if (blob) kept[path] = blob;
  }
  const entry = {key: record.key, tab: name, title, changed, record, files: kept};
  await page.store.put(entry);
  know(entry);
  page.showList();
}

// One after the other, or an older state could be the last that is written. Tabs take turns, where the page is secure enough
// for the browser to have locks.
const inTurn = write => navigator.locks ? navigator.locks.request("ask-a-picture", write) : write();
let keeping = Promise.resolve(), refused = false;
page.changed.push((tab, wasBusy) => {
  if (tab.busy && !wasBusy) deleted.delete(tab.record.key);  // it is still shown, and goes on
  // A question that was left before its first word stays as it was kept: whoever opens its conversation finds it in the box.
  if (tab.leaving && !tab.answered) return;
  const {record} = tab;
  keeping = keeping.then(async () => {
    const files = await filesOf(tab, record);  // before its turn, which other tabs wait for
    await inTurn(() => keep(tab, record, files));
  }).catch(problem => {
    console.warn(problem);
    if (isNoRoom(problem)) note(tab, NO_ROOM);
    else if (!refused) note(tab, NOT_KEPT);
    refused ||= !isNoRoom(problem);
  });
});

/* Stop the answer under way and keep what there is of it, before the tab shows something else. */
async function leave(tab) {
  const end = Date.now() + LEAVING;
  page.keepUnsent(tab);
  tab.leaving = true;
  for (let stopped = false; tab.busy && Date.now() < end;) {
    stopped ||= page.stop(tab);  // its button appears a moment after its tab, or after the question
    await new Promise(go => setTimeout(go, 30));
  }
  tab.leaving = false;
  await Promise.race([keeping, new Promise(go => setTimeout(go, end - Date.now()))]);  // its files may be large
}

/* What was being written, where the question under way is about to come back into the box; else, and where pictures stand in
   it, the box is left as it is. */
const besideQuestion = tab => tab.busy && !tab.panel.querySelector(".composer .thumbnail-item") ? page.box(tab)?.value : undefined;

page.open = async key => {
  const found = await page.store.get(key), tab = found && await page.tab(found.tab);
  if (found) page.show(tab, key, besideQuestion(tab));
};

/* Show a conversation in its tab: its files are sent to the server again, which may have deleted them since. `draft` is what
   the box is to hold, if not what it holds; `growing` what was said since it was kept. */
page.show = async (tab, key, draft, growing) => {
  if (tab.busy && tab.record.key === key) return;  // it is shown, and grows
  const mine = tab.opening = {};  // of two that are opened one after the other the last is shown, and none if a question is asked
  await leave(tab);
  const entry = await page.store.get(key);
  if (!entry) return tab.trigger("fresh", {draft});  // another tab has deleted it
  deleted.delete(key);
  const record = structuredClone(growing || entry.record);
  const places = {}, files = {};
  try {
    for (const [path, blob] of Object.entries(entry.files)) {
      const name = path.split("/").pop().replace(/\.\w+$/, "") + (blob.type.startsWith("image/") ? ".jpg" : path.match(/\.\w+$/)?.[0] || "");
      places[path] = (await tab.upload(new File([blob], name, {type: blob.type}))).path;
      files[places[path]] = blob;
    }
  } catch {  // without its files it would be kept without them
    return note(tab, "The conversation could not be opened: its files could not be sent. Please try again in a moment.");
  }
  if (tab.opening !== mine || deleted.has(key)) return;
  tab.files = files;
  for (const exchange of record.exchanges) {
    exchange.pictures = exchange.pictures.map(path => places[path] || path);
    exchange.recording = exchange.recording && (places[exchange.recording] || exchange.recording);
  }
  delete parted[key];
  know(entry);
  tab.trigger("opened", {record, draft});
};

page.startOver = async () => {
  const tab = page.shown() || await page.tab("Image"), draft = besideQuestion(tab);
  tab.opening = null;
  await leave(tab);
  inTab.remove(`shown ${tab.name}`);
  tab.trigger("fresh", {draft});
  page.box(tab)?.focus();
};
