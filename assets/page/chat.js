/* The chat: it follows an answer that grows, says it once to a screen reader, and takes keys. */

const NEAR = 80;  // pixels from the end that still count as being there
const REDRAWN = 150;  // milliseconds after which the chat is drawn anew

/* Keep the end of the conversation in view, unless the person has scrolled up. */
page.follow = tab => {
  const chat = tab.panel.querySelector(".conversation");
  const scroller = () => chat.querySelector(".bubble-wrap");
  Object.assign(tab, {atEnd: true, top: 0, height: 0});
  chat.addEventListener("scroll", ({target}) => {
    if (target === scroller()) tab.atEnd = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR;
  }, true);
  const keepEnd = () => {
    const view = scroller();
    if (!view) return;
    if (view.getAttribute("aria-live") !== "off") view.setAttribute("aria-live", "off");  // said once, below
    const isNear = view.scrollHeight - view.scrollTop - view.clientHeight < NEAR;
    const scrolledUp = !isNear && view.scrollHeight >= tab.height && view.scrollTop < tab.top - NEAR;
    if (scrolledUp) tab.atEnd = false;  // the event that tells of it is still to come
    if (tab.atEnd && tab.record?.exchanges.length) view.scrollTop = view.scrollHeight;
    Object.assign(tab, {top: view.scrollTop, height: view.scrollHeight});
  };
  new MutationObserver(keepEnd).observe(chat, {childList: true, subtree: true, characterData: true});
  chat.addEventListener("load", keepEnd, true);  // a picture takes its place only when it has come
  new ResizeObserver(keepEnd).observe(chat);     // also when its tab is shown, which may have been filled before
};

// It stands on the page before the first answer: a screen reader says what changes, and not what comes with its place.
const told = Object.assign(document.createElement("div"), {id: "told"});
told.setAttribute("aria-live", "polite");
page.withBody(() => document.body.append(told));

/* As it is said: without the signs of Markdown. */
page.lastAnswer = tab => tab.words.at(-1) || "";

page.changed.push((tab, wasBusy) => {
  if (tab.busy && !wasBusy) {  // a question was asked
    tab.atEnd = true;
    told.textContent = "Answering…";
  }
  if (!wasBusy || tab.busy) return;
  told.textContent = tab.answered ? page.lastAnswer(tab) : "";
});

/* Where the button that was clicked is drawn anew, one types on in the box. On a phone that would open its keyboard. */
let focused = null;
document.addEventListener("focusin", ({target}) => { focused = target; });
page.changed.push(tab => setTimeout(() => {
  const isLost = document.activeElement === document.body && focused && !focused.isConnected;
  if (isLost && tab.panel.offsetParent && matchMedia("(pointer: fine)").matches) page.box(tab)?.focus();
}, REDRAWN));

/* How the last answer came about opens below the end of what is seen. */
document.addEventListener("toggle", ({target}) => {
  if (target.open && target.matches(".trace")) target.scrollIntoView({block: "nearest"});
}, true);

page.box = tab => tab.panel.querySelector(".composer textarea");

page.stop = tab => {
  const stop = [...tab.panel.querySelectorAll(".stop-button, .stop-answer")]
    .find(each => !each.disabled && (each.offsetParent || !tab.panel.offsetParent));  // also behind another tab
  stop?.click();
  return Boolean(stop);
};

const ASIDE = "#list, .right-answer, [type=search]";  // where Escape is about what is written there

document.addEventListener("keydown", event => {
  const tab = page.shown();
  if (!tab || event.isComposing || document.querySelector("dialog[open]")) return;
  const box = page.box(tab), typing = event.target === box;
  if (event.key === "Escape") {
    if (event.target.closest?.(ASIDE)) return;
    page.hush();
    if (!page.closeLook(tab) && !page.dropRecording() && !page.stop(tab)) tab.panel.querySelector("[data-action=leave]")?.click();
  }
  if (!typing) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) tab.panel.querySelector(".submit-button")?.click();
  if (event.key === "ArrowUp" && !box.value && !tab.busy) {
    const questions = tab.panel.querySelectorAll("[data-action=edit]");
    if (!questions.length) return;
    event.preventDefault();
    questions[questions.length - 1].click();
  }
});

async function copy(button, text) {
  const shown = button.dataset.shown ||= button.textContent;  // a second click finds "Copied" there
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {  // over plain http browsers offer no clipboard
    const area = Object.assign(document.createElement("textarea"), {value: text});
    document.body.append(area);
    area.select();
    button.textContent = document.execCommand("copy") ? "Copied" : "Copying is not allowed here";
    area.remove();
  }
  setTimeout(() => { button.textContent = shown; }, 1500);
}
const numberOf = button => button.closest("[data-at]").dataset.at;
page.words = (button, tab) => tab.words[numberOf(button)];
page.actions.copy = (button, {record}) => copy(button, record.exchanges[record.ways[record.shown][numberOf(button)]].answer.text);
page.actions["copy-code"] = button => copy(button, button.closest(".code").querySelector("code").textContent);
