/* The list of conversations at the side. */

const FORMAT = "ask-a-picture conversations";
let list, undone, wasShown;  // the element, what was deleted last, and whether its tab showed it

page.list = element => {
  list = element.querySelector(".conversations");
  list.addEventListener("click", event => {
    const button = event.target.closest("[data-list]");
    closeMenus(button ? null : event.target.closest("details"));
    list.querySelector(".refused").hidden = true;
    if (button) listActions[button.dataset.list](button.closest("li")?.dataset.key, button);
  });
  list.querySelector("[type=search]").addEventListener("input", page.showList);
  list.querySelector("[type=file]").addEventListener("change", async ({target}) => {
    await taken(target.files[0]);
    target.value = "";
  });
  document.addEventListener("click", ({target}) => {
    if (target.closest("#tabs [role=tab]")) page.showList();
    if (!target.closest(".conversations details")) closeMenus();
  });
  list.addEventListener("keydown", event => { if (event.key === "Escape") closeMenus()?.querySelector("summary").focus(); });
  page.showList();
  if (innerWidth >= WIDE && !page.settings.listClosed) page.toggle("list");
};

/* All but one. Returns what was open. */
function closeMenus(but) {
  const open = [...list.querySelectorAll("details[open]")].find(each => each !== but);
  if (open) open.open = false;
  return open;
}

const textOf = entry => [entry.title, ...entry.record.exchanges.map(each => `${page.asked(each)} ${each.answer?.text || ""}`)].join(" ");

page.showList = async () => {
  const entries = (await page.store.all().catch(() => [])).sort((one, other) => other.changed - one.changed);
  if (!list || list.querySelector("li input")) return;  // nothing is redrawn under a name that is being written
  const wanted = list.querySelector("[type=search]").value.toLowerCase();
  const found = entries.filter(entry => !wanted || textOf(entry).toLowerCase().includes(wanted));
  const menu = list.querySelector("details[open]")?.closest("li").dataset.key;
  redraw(list.querySelector("ul"), found);
  for (const item of list.querySelectorAll("ul > li")) item.querySelector("details").open = item.dataset.key === menu;  // it stays
  list.querySelector(".none").hidden = entries.length > 0;
  list.querySelector(".not-found").hidden = !entries.length || found.length > 0;
};

/* What has not changed stays in its place: a click under way would miss it, and it would lose the focus. */
function redraw(drawn, entries) {
  const before = new Map([...drawn.children].map(each => [each.dataset.shown, each]));
  const items = entries.map(entry => before.get(shownOf(entry)) || itemOf(entry)), kept = new Set(items);
  for (const each of before.values()) if (!kept.has(each)) each.remove();
  items.forEach((item, place) => { if (drawn.children[place] !== item) drawn.insertBefore(item, drawn.children[place] || null); });
}

const isShown = entry => page.shown()?.record?.key === entry.key;
const shownOf = entry => JSON.stringify(
  [entry.key, entry.title, page.translated(entry.tab), entry.changed, whenOf(new Date(entry.changed)), isShown(entry)]);

function button(action, text, name) {
  const made = Object.assign(document.createElement("button"), {type: "button", textContent: text});
  made.dataset.list = action;
  if (name) made.ariaLabel = made.title = name;
  return made;
}

function thumbnail(blob) {
  const image = Object.assign(new Image(), {alt: "", src: URL.createObjectURL(blob)});
  image.onload = image.onerror = () => URL.revokeObjectURL(image.src);
  return image;
}

/* There is no room for both. */
function whenOf(changed) {
  const today = changed.toDateString() === new Date().toDateString();
  return today ? changed.toLocaleTimeString([], {timeStyle: "short"}) : changed.toLocaleDateString([], {dateStyle: "short"});
}

function itemOf(entry) {
  const item = document.createElement("li");
  Object.assign(item.dataset, {key: entry.key, title: entry.title, shown: shownOf(entry)});
  const open = Object.assign(button("open", ""), {dir: "auto"}), title = document.createElement("span");
  title.textContent = entry.title;
  title.translate = entry.title === UNHEARD;
  const when = document.createElement("small");
  when.textContent = `${page.translated(entry.tab)} · ${whenOf(new Date(entry.changed))}`;
  const shown = entry.files[entry.record.exchanges.flatMap(each => each.pictures)[0]];
  if (shown) open.append(thumbnail(shown));
  open.append(title, when);
  if (isShown(entry)) open.setAttribute("aria-current", "true");
  const more = document.createElement("details");
  const summary = Object.assign(document.createElement("summary"), {textContent: "⋯", ariaLabel: `More about ${entry.title}`});
  more.append(summary, button("rename", "Rename"), button("markdown", "Save as Markdown"), button("json", "Save as JSON"),
    button("delete", "Delete"));
  item.append(open, more);
  return item;
}

/* Where what had the focus is gone, the next key goes on from this conversation, or from Undo where it is gone as well. */
function refocus(key) {
  if (document.activeElement.offsetParent) return;  // it is still to be seen
  const item = [...list.querySelectorAll("ul > li")].find(each => each.dataset.key === key);
  (item || list.querySelector(".undo")).querySelector("button").focus({preventScroll: true});
}

/* On a small window the list lies over the talk. */
function leaveList() {
  if (innerWidth < WIDE) page.toggle("list");
}

const listActions = {
  new: () => {
    page.startOver();
    leaveList();
  },
  open: key => {
    page.open(key);
    leaveList();
  },
  rename(key, button) {
    const item = button.closest("li"), entryTitle = item.dataset.title;
    const field = Object.assign(document.createElement("input"), {value: entryTitle, ariaLabel: "New name", maxLength: 200});
    item.replaceChildren(field);
    field.focus();
    field.select();
    field.addEventListener("keydown", event => {
      if (event.isComposing) return;  // the key is about the word that is put together
      if (event.key === "Enter") field.blur();
      if (event.key !== "Escape") return;
      event.stopPropagation();  // it would stop the answer as well
      field.value = entryTitle;
      field.blur();
    });
    field.addEventListener("blur", async () => {
      const rename = async () => {
        const entry = await page.store.get(key);
        if (entry && field.value.trim()) await page.store.put({...entry, title: field.value.trim()});
      };
      await inTurn(rename).catch(problem => {
        console.warn(problem);
        if (isNoRoom(problem)) setTimeout(() => refuse(NO_ROOM));  // the click that ended the writing would hide it
      });
      item.remove();
      await page.showList();
      refocus(item.dataset.key);
    });
  },
  async delete(key) {
    const shown = Object.values(page.tabs).find(each => each.record?.key === key);
    const draft = shown && besideQuestion(shown), opening = shown?.opening;
    if (shown) await leave(shown);  // or what is said of it afterwards would come back as a conversation of its own
    undone = await page.store.get(key);
    if (!undone) return page.showList();  // another tab was first
    deleted.add(key);
    await inTurn(() => page.store.delete(key));
    wasShown = Boolean(shown);
    if (shown?.record?.key === key && shown.opening === opening) shown.trigger("fresh", {draft});  // no other was opened since
    const said = list.querySelector(".undo");
    said.hidden = false;
    said.firstElementChild.textContent = `“${undone.title}” was deleted.`;
    await page.showList();
    refocus(key);
  },
  async undo() {
    const entry = undone;
    try {
      if (entry) await inTurn(() => page.store.put(entry));
    } catch (problem) {
      return console.warn(problem);  // it can be tried again
    }
    if (undone === entry) {
      undone = null;
      list.querySelector(".undo").hidden = true;
    }
    await page.showList();
    refocus(entry?.key);
    const begun = page.tabs[entry?.tab]?.record?.exchanges.length;  // another conversation since
    if (entry && wasShown && !begun) page.open(entry.key);
  },
  "delete-all"() {
    const dialog = list.querySelector("dialog");
    dialog.returnValue = "";
    dialog.onclose = async () => {
      if (dialog.returnValue !== "delete") return;
      const tabs = Object.values(page.tabs), drafts = tabs.map(besideQuestion);
      await Promise.all(tabs.map(leave));
      for (const {key} of await page.store.all()) deleted.add(key);
      for (const {record} of tabs) if (record?.key) deleted.add(record.key);
      await inTurn(page.store.clear);
      list.querySelector(".undo").hidden = true;
      tabs.forEach((tab, place) => tab.trigger("fresh", {draft: drafts[place]}));
      page.showList();
    };
    dialog.showModal();
  },
  async export() {
    await keeping;
    save("conversations.json", await written(await page.store.all()), "application/json");
  },
  async json(key) {
    await keeping;
    save("conversation.json", await written([await page.store.get(key)]), "application/json");
  },
  async markdown(key) {
    await keeping;
    const {title, record} = await page.store.get(key);
    const said = wayShown(record).map(each => {
      const pictures = each.pictures.map(path => path.split("/").pop()).join(", ");
      return `## ${page.asked(each) || page.translated("A recording")}\n\n${pictures ? `${page.translated("Pictures")}: ${pictures}\n\n` : ""}${each.answer?.text || page.translated("(no answer)")}\n`;
    });
    save("conversation.md", [`# ${title}\n`, ...said].join("\n"), "text/markdown");
  },
};

const wayShown = record => record.ways[record.shown].map(number => record.exchanges[number]);

function save(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type}));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

const dataUrl = blob => new Promise(resolve => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.readAsDataURL(blob);
});

async function written(entries) {
  const conversations = [];
  for (const entry of entries) {
    const files = {};
    for (const [path, blob] of Object.entries(entry.files)) files[path] = await dataUrl(blob);
    conversations.push({...entry, files});
  }
  return JSON.stringify({format: FORMAT, conversations}, null, 1);
}

/* Beside what can be undone, which stays. */
function refuse(why) {
  const said = list.querySelector(".refused");
  said.hidden = false;
  said.textContent = why;
}

/* Take in what was exported. The server checks a record when it is opened. */
async function taken(file) {
  try {
    const read = JSON.parse(await file.text());
    if (read.format !== FORMAT) throw Error();
    const entries = [];
    for (const {key, tab, title, changed, record, files} of read.conversations) {
      const blobs = {};
      for (const [path, url] of Object.entries(files)) {
        const [, type, data] = url.match(/^data:([\w.+-]+\/[\w.+-]+)[^,]*,(.*)$/s);
        blobs[path] = new Blob([Uint8Array.from(atob(data), each => each.charCodeAt(0))], {type});
      }
      record.exchanges.forEach(page.asked);
      const strange = ![key, title].every(each => typeof each === "string") || !CONVERSATION_TABS.includes(tab);
      if (strange || !wayShown(record).every(each => Array.isArray(each.pictures))) throw Error();
      entries.push({key, tab, title, changed: Number(changed) || 0, record: {...record, key}, files: blobs});
    }
    let news = 0;
    for (const entry of entries) {
      const there = await page.store.get(entry.key);
      if (there && there.changed >= entry.changed) continue;  // what was said since stays
      await page.store.put(entry);
      news += 1;
    }
    if (news) list.querySelector(".refused").hidden = true;
    else refuse("All of these conversations are here already.");
  } catch (problem) {
    refuse(isNoRoom(problem) ? NO_ROOM : `${file.name} holds no conversations that this page has exported.`);
  }
  page.showList();
}

page.changed.push(() => page.showList());
