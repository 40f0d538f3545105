/* What the page does in the browser beyond Gradio's own components. Gradio calls `page.connect` and `page.list` when the
   elements that they are about appear (js_on_load). A button says in `data-action` what it does: either a handler of
   vlm/serving/ gets it, with what the button is about, or a function of `page.actions` here. */

const WIDE = 1120;  // pixels, from which there is room for the list beside the talk (70rem in app.css)

const CONVERSATION_TABS = ["Image", "Text", "Voice"];  // of vlm/serving/tabs.py

/* What the browser keeps for us; it may refuse to, or have no room left. */
const storage = kind => {
  const quietly = ask => { try { return ask(window[kind]); } catch { return null; } };
  return {
    get: name => quietly(kept => kept.getItem(name)),
    set: (name, value) => quietly(kept => { kept.removeItem(name); kept.setItem(name, value); }),
    remove: name => quietly(kept => kept.removeItem(name)),
  };
};
const inBrowser = storage("localStorage"), inTab = storage("sessionStorage");

const page = {
  tabs: {},      // name -> the connection to a conversation tab: trigger, upload, panel, record, words, busy
  waiting: {},   // name -> those who wait for that tab to appear
  actions: {},   // name -> (button, tab) => what it does
  changed: [],   // functions that are told of a tab whose conversation has changed; recording.js goes before aloud.js

  connect({element, trigger, props, upload, watch}, served) {
    const tab = {name: props.tab, trigger, upload, served, files: {}, record: null, growing: null, words: [], busy: false};
    tab.panel = element.closest("[role=tabpanel]");
    page.tabs[tab.name] = tab;
    watch("value", () => {
      const {busy, record, words, growing, unheard} = JSON.parse(props.value);
      tab.growing = growing ? record : null;  // what a reload goes on from
      if (growing) return;
      tab.reopening = false;
      const wasBusy = tab.busy, before = tab.record?.exchanges.length ?? 0;
      const answered = (record?.exchanges.length ?? 0) >= before;  // a question that failed is taken out again
      Object.assign(tab, {busy, record, words, answered, unheard});
      if (busy && !wasBusy) tab.opening = null;  // a question goes before a conversation that is still being opened
      page.changed.forEach(tell => tell(tab, wasBusy));
    });
    page.follow(tab);
    page.keepRightAnswers(tab);
    const chat = tab.panel.querySelector(".conversation");
    new MutationObserver(() => page.drawFormulas(chat)).observe(chat, {childList: true, subtree: true});
    page.showVoices(tab);
    page.listenWhereShown(tab);
    if (tab.panel.querySelector(".look")) page.focusLook(tab);
    page.tellOfPictures(tab);
    page.keepInSight(tab);
    (page.waiting[tab.name] || []).forEach(go => go(tab));
    page.reopen(tab, !page.waiting[tab.name]);
  },

  /* The tab, shown; it is built when it is first looked at. */
  async tab(name) {
    [...document.querySelectorAll("#tabs > .tab-wrapper [role=tab]")].find(each => each.innerText.trim() === page.translated(name))?.click();
    return page.tabs[name] || new Promise(resolve => { (page.waiting[name] ||= []).push(resolve); });
  },

  tabOf(element) {
    return Object.values(page.tabs).find(tab => tab.panel.contains(element));
  },

  /* The conversation tab that is looked at, if it is one. */
  shown() {
    return Object.values(page.tabs).find(tab => tab.panel.offsetParent);
  },

  toggle(sidebar) {
    document.querySelector(`#${sidebar} > .toggle-button`)?.click();
  },

  /* Call it when there is a body, before which this script may run. */
  withBody(then) {
    if (document.body) then();
    else document.addEventListener("DOMContentLoaded", then);
  },

  settings: JSON.parse(inBrowser.get("ask-a-picture page") || "{}"),

  set(name, value) {
    page.settings[name] = value;
    inBrowser.set("ask-a-picture page", JSON.stringify(page.settings));
  },
};

page.actions["show-list"] = () => {
  if (innerWidth >= WIDE) page.set("listClosed", document.querySelector("#list").classList.contains("open"));
  page.toggle("list");
};
page.actions["show-settings"] = () => page.toggle("settings");

page.actions.unfold = button => {
  const folded = button.closest(".question").querySelector(".words").classList.toggle("folded");
  button.textContent = folded ? "Show all" : "Show less";
};

/* Gradio's description of the API hangs on a button of its footer, which app.css hides. Its own way by the address, ?view=api,
   opens nothing: its code is fetched by that button only. So the address is read here, before Gradio reads it. */
page.actions.api = () => document.querySelector("footer button")?.click();
const address = new URL(location);
if (address.searchParams.get("view") === "api") {
  address.searchParams.delete("view");
  history.replaceState(null, "", address);
  new MutationObserver((_, observer) => {
    if (!document.querySelector("footer button")) return;
    observer.disconnect();
    page.actions.api();
  }).observe(document, {childList: true, subtree: true});
}

/* Escape closes what lies over the talk or beside it; within the talk it is chat.js's. */
document.addEventListener("keydown", event => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  const description = document.querySelector(".api-docs .backdrop"), inTalk = event.target.closest("#tabs, #list");
  const settings = document.querySelector("#settings.open"), menu = event.target.ariaExpanded === "true";
  if (!description && (!settings || inTalk || menu)) return;
  event.stopImmediatePropagation();
  if (description) return description.click();
  page.toggle("settings");
  document.querySelector("header [data-action=show-settings]").focus();
});

function showDark() {
  if (page.settings.dark !== undefined) document.body.classList.toggle("dark", page.settings.dark);
}
page.actions.dark = () => {
  page.set("dark", !document.body.classList.contains("dark"));
  showDark();
};
// Gradio sets the class by the system's colours, before or after this script runs.
function keepDark() {
  showDark();
  new MutationObserver(showDark).observe(document.body, {attributes: true, attributeFilter: ["class"]});
}
page.withBody(keepDark);

document.addEventListener("click", event => {
  const button = event.target.closest?.("[data-action]");
  if (!button || button.type === "file") return;
  const {action, step} = button.dataset, tab = page.tabOf(button);
  if (tab?.served.includes(action)) {
    const at = button.closest("[data-at]")?.dataset.at;
    tab.trigger(action, {at: Number(at ?? -1), step: Number(step ?? 0), text: button.textContent});
    if (action === "edit") page.box(tab)?.focus();
  } else page.actions[action]?.(button, tab);
});

document.addEventListener("change", event => {
  const {setting} = event.target.dataset || {};
  if (!setting) return;
  const value = event.target.type === "checkbox" ? event.target.checked : event.target.value;
  page.set(setting, value);
  page.actions[setting]?.(event.target, page.tabOf(event.target));
});
