/* Pictures: dropped anywhere they go to the composer, large ones are scaled down before they are sent, a click enlarges. */

const SENT_SIDE = 2048;                // pixels; the server looks at 1600 (vlm/inputs/images.py)
const LARGE = 4 * 1024 * 1024;         // bytes, from which a picture is scaled down
const IN_SIGHT = 60;                   // pixels of a picture in the talk, at which it is still seen

/* A JPEG of at most so many pixels a side, on white; the blob itself where the browser cannot read it. */
page.scaled = async (blob, side) => {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, {imageOrientation: "from-image"});
  } catch {
    return blob;
  }
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const draw = canvas.getContext("2d");
  draw.fillStyle = "white";
  draw.fillRect(0, 0, canvas.width, canvas.height);
  draw.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return new Promise(resolve => canvas.toBlob(made => resolve(made || blob), "image/jpeg", 0.9));
};

const isLarge = file => file.type.startsWith("image/") && file.size > LARGE;
// What the server does not read (vlm/inputs/images.py); a browser that reads one makes a JPEG of it.
const READ = /^image\/(a?png|jpeg|webp|gif|bmp|x-(ms-)?bmp|tiff|avif)$/;
const isForeign = file => file.type.startsWith("image/") ? !READ.test(file.type) : /\.(svg|hei[cf]|jxl|psd|ico)$/i.test(file.name);

function carry(files) {
  const carried = new DataTransfer();
  for (const file of files) carried.items.add(file);
  return carried.files;
}

/* The files as they are sent. What cannot be read is left out, and said. */
async function madeReady(files, tab) {
  const carried = [];
  let refused = "";
  for (const file of files) {
    const made = isLarge(file) || isForeign(file) ? await page.scaled(file, SENT_SIDE) : file;
    if (made !== file) carried.push(new File([made], file.name.replace(/\.\w+$/, "") + ".jpg", {type: made.type}));
    else if (isForeign(file)) refused = `The picture "${file.name}" is not a picture that can be read here. Use PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF.`;
    else carried.push(file);
  }
  if (refused || !tab.unsent) note(tab, refused);
  return carried;
}

let handing = false;

/* Give files to an input, as if they had been chosen there. */
function hand(input, files) {
  input.files = carry(files);
  handing = true;
  if (files.length) input.dispatchEvent(new Event("change", {bubbles: true}));
  handing = false;
}

// Files that were chosen in a dialog: before Gradio sends them.
document.addEventListener("change", async event => {
  const input = event.target;
  if (handing || input.type !== "file" || !input.closest(".composer")) return;
  event.stopImmediatePropagation();
  await handReady(input, [...input.files], page.tabOf(input));
}, true);

// Of a folder all but its pictures is left out: a film would be too large, and the others with it.
const LARGEST = 64 * 1024 * 1024;  // bytes, of any file (vlm/serving/launch.py)
const isPicture = file => (file.type.startsWith("image/") || /\.(tiff?|avif|webp)$/i.test(file.name)) && file.size <= LARGEST;
document.addEventListener("change", event => {
  const input = event.target, files = [...input.files || []], pictures = files.filter(isPicture);
  if (handing || !input.webkitdirectory || !pictures.length || pictures.length === files.length) return;
  event.stopImmediatePropagation();
  hand(input, pictures);
}, true);

/* Until they are there the question waits: it would go without them. */
async function handReady(input, files, tab) {
  Object.assign(tab, {preparing: true, held: false});
  try {
    const ready = await madeReady(files, tab);
    tab.held &&= ready.length > 0;
    hand(input, ready);
  } finally {
    tab.preparing = false;
  }
}

const isSending = event => event.type === "click" ? event.target.closest?.(".composer .submit-button")
  : event.key === "Enter" && !event.shiftKey && event.target.matches?.(".composer textarea");
for (const name of ["click", "keydown"]) document.addEventListener(name, event => {
  const tab = isSending(event) && page.tabOf(event.target);
  if (!tab?.preparing) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  tab.held = true;  // until they stand in the composer
}, true);

/* Put files into the composer of the Image tab; a recording is asked on the Voice tab where that is shown. */
async function give(files) {
  const recordings = page.shown()?.panel.querySelector("[data-action=recording]");
  if (recordings && files[0].type.startsWith("audio/")) return hand(recordings, files);
  const tab = await page.tab("Image");
  await handReady(tab.panel.querySelector(".composer input[type=file]"), files, tab);
}

/* The server looks at a picture as soon as it stands in the composer, while its question is typed or spoken. */
page.tellOfPictures = tab => {
  const composer = tab.panel.querySelector(".composer");
  let before = [];
  new MutationObserver(() => {
    const sources = [...composer.querySelectorAll(".thumbnail-wrapper img")].map(image => image.src);
    const now = sources.filter(each => !each.startsWith("data:"));  // the sign of a picture that cannot be shown
    if (now.some(each => !before.includes(each))) {
      tab.trigger("attached");
      if (tab.held) setTimeout(() => composer.querySelector(".submit-button")?.click(), REDRAWN);
      tab.held = false;
    }
    before = now;
  }).observe(composer, {childList: true, subtree: true, attributeFilter: ["src"]});
};

/* Pictures that wait in the composer are put into another order: one is dragged onto another's place, or moved with Alt and an
   arrow key. What was moved waits in `page.moved` for the event of the bar, which has the composer's value. */
let dragged = null;
const inComposer = target => target.closest?.(".composer .thumbnail-wrapper");
const waiting = thumbnail => [...thumbnail.parentElement.querySelectorAll(".thumbnail-wrapper")];

function move(thumbnail, to) {
  const from = waiting(thumbnail).indexOf(thumbnail);
  if (to === from || to < 0 || to >= waiting(thumbnail).length) return;
  page.moved = {from, to};
  page.tabOf(thumbnail).trigger("arranged");
}

page.arranged = composed => {
  const files = [...composed.files];
  files.splice(page.moved.to, 0, ...files.splice(page.moved.from, 1));
  return {...composed, files};
};

document.addEventListener("pointerdown", event => {
  const thumbnail = inComposer(event.target);  // its button to remove it lies over it, which cannot be dragged by itself
  if (thumbnail) thumbnail.draggable = true;
}, true);
document.addEventListener("dragstart", event => { dragged = inComposer(event.target); });
document.addEventListener("dragend", () => { dragged = null; });
for (const name of ["dragover", "drop"]) document.addEventListener(name, event => {
  if (!dragged) return;
  event.preventDefault();
  event.stopImmediatePropagation();  // what is dragged is no file from outside
  const onto = inComposer(event.target);
  if (name === "drop" && onto && page.tabOf(onto) === page.tabOf(dragged)) move(dragged, waiting(onto).indexOf(onto));
}, true);
document.addEventListener("keydown", event => {
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key], thumbnail = inComposer(event.target);
  if (!step || !event.altKey || !thumbnail) return;
  event.preventDefault();
  move(thumbnail, waiting(thumbnail).indexOf(thumbnail) + step);
}, true);

/* What was dropped, and all that is in a folder. */
async function filesOfDrop(dropped) {
  const entries = [...dropped.items].map(each => each.webkitGetAsEntry?.()).filter(Boolean), files = [...dropped.files];
  if (!entries.some(each => each.isDirectory)) return files;
  return (await Promise.all(entries.map(filesWithin))).flat().filter(isPicture);
}

async function filesWithin(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader(), files = [];
  for (let some; !some || some.length;) {  // a hundred at a time
    some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    files.push(...(await Promise.all(some.map(filesWithin))).flat());
  }
  return files;
}

/* Pictures to search in: while others are sent, Gradio shows how far they are in place of the input, and these wait. */
async function chooseForSearch(panel, dropped) {
  const files = await filesOfDrop(dropped), input = () => panel.querySelector("input[type=file][multiple]:not([webkitdirectory])");
  while (!input()) await new Promise(go => setTimeout(go, REDRAWN));
  hand(input(), files);
}

const isSearch = target => target.closest?.("[role=tabpanel]") && !page.tabOf(target);

for (const name of ["dragover", "drop"]) document.addEventListener(name, event => {
  const files = event.dataTransfer?.files || [];
  if (!event.dataTransfer?.types.includes("Files")) return;
  const search = isSearch(event.target) ? event.target.closest("[role=tabpanel]") : null;
  const takesOne = search && event.target.closest(".block")?.querySelector("input[type=file]:not([multiple])");
  document.body.classList.toggle("dragging", name === "dragover" && !takesOne);
  if (takesOne) return;
  event.preventDefault();
  event.stopPropagation();
  if (name !== "drop" || !files.length) return;
  if (search?.querySelector(".find")) chooseForSearch(search, event.dataTransfer);
  else give([...files]);
}, true);
for (const name of ["dragleave", "dragend"]) document.addEventListener(name, event => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});

document.addEventListener("paste", event => {
  // Cells and paragraphs come with a picture of themselves, and a copied file with its name, which is plain text alone.
  if (["text/plain", "text/html"].every(kind => event.clipboardData?.types.includes(kind))) return;
  const files = [...event.clipboardData?.files || []].filter(file => file.type.startsWith("image/"));
  if (!files.length || !page.tabOf(event.target) && event.target !== document.body) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  give(files);
}, true);

// A picture that the browser cannot show, as a TIFF, is sent all the same: the composer shows what kind of file it is.
document.addEventListener("error", event => {
  const image = event.target;
  if (image.tagName !== "IMG" || !image.closest(".composer") || image.src.startsWith("data:")) return;
  const [, kind = "?"] = image.src.match(/\.(\w{1,5})$/) || [];
  image.src = `data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" fill="gray"/>`
    + `<text x="32" y="38" fill="white" font-family="sans-serif" font-size="16" text-anchor="middle">${kind.toUpperCase()}</text></svg>`;
}, true);

/* The camera begins without a second click, on Gradio's own button. */
page.startCamera = () => setTimeout(() => {
  const seen = [...document.querySelectorAll(".camera :is(button, video)")].filter(each => each.offsetParent);
  if (seen[0]?.matches("button")) seen[0].click();
}, REDRAWN);

/* What is asked about stays in sight above the talk once it has scrolled away. */
page.keepInSight = tab => {
  const chat = tab.panel.querySelector(".conversation"), above = Object.assign(document.createElement("div"), {className: "in-sight", hidden: true});
  chat.before(above);
  let shown = "";
  const show = () => {
    if (!chat.offsetParent) return;  // nothing is anywhere on a tab that is not shown
    const latest = [...chat.querySelectorAll(".question .pictures")].at(-1);
    const away = latest && latest.getBoundingClientRect().bottom < chat.getBoundingClientRect().top + IN_SIGHT;
    const now = away ? [...latest.querySelectorAll("button")].map(each => each.outerHTML).join("") : "";
    if (now === shown) return;
    const before = above.offsetHeight;
    above.innerHTML = shown = now;
    above.hidden = !now;
    chat.querySelector(".bubble-wrap").scrollTop += above.offsetHeight - before;  // what is read stays where it is
  };
  chat.addEventListener("scroll", show, true);
  chat.addEventListener("load", show, true);
  new MutationObserver(show).observe(chat, {childList: true, subtree: true});
  new ResizeObserver(show).observe(chat);
};

page.actions.zoom = button => {
  const dialog = document.createElement("dialog"), image = button.querySelector("img").cloneNode();
  dialog.className = "zoom";
  dialog.ariaLabel = image.alt;
  dialog.append(image);
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
};
