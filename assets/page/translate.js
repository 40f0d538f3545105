/* The page in the browser's language. Whatever appears in English and stands in the table (translations.yaml, here
   `TRANSLATIONS`) is replaced before it is painted, Gradio's labels and our own HTML alike. What people or the model said is
   left alone: it stands in an element with translate="no", as for browsers that translate, or in one of `NOT_OURS`. */

const NOT_OURS = "textarea, script, style, code, .api-docs, .found, .file-preview, .output-class, .confidence-set, [contenteditable]";
const SENTENCES = ["reason", "which"]; // what stands in braces and is a text of the table itself
const NAMING = ["placeholder", "aria-label", "title", "alt"];

page.language = navigator.language.split("-")[0].toLowerCase();
if (!TRANSLATIONS[page.language]) page.language = "en";
// Gradio writes the browser's language there, also where our words are English.
const keepLanguage = () => { if (document.documentElement.lang !== page.language) document.documentElement.lang = page.language; };
keepLanguage();
new MutationObserver(keepLanguage).observe(document.documentElement, {attributes: true, attributeFilter: ["lang"]});

const table = TRANSLATIONS[page.language] || {};
const escaped = text => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
// Texts with something in braces, which may be anything.
const patterns = Object.keys(table).filter(text => text.includes("{")).map(text => {
  const names = [...text.matchAll(/{(\w+)}/g)].map(found => found[1]);
  const source = text.split(/{\w+}/).map(escaped).join("(.+?)");
  return {names, shape: new RegExp(`^${source}$`, "s"), text: table[text]};
});

/* English -> the browser's language; what is not in the table stays as it is. */
page.translated = text => {
  if (Object.hasOwn(table, text)) return table[text];
  for (const {names, shape, text: said} of patterns) {
    const found = text.match(shape);
    if (found) return said.replace(/{(\w+)}/g, (_, name) => {
      const value = found[names.indexOf(name) + 1];
      return SENTENCES.includes(name) ? page.translated(value) : value;
    });
  }
  return text;
};

const isOurs = element => element && !element.closest(NOT_OURS) && element.closest("[translate]")?.getAttribute("translate") !== "no";

function sayText(node) {
  const shown = node.data.trim(), english = shown.replace(/\s+/g, " "), said = english && page.translated(english);
  if (said !== english && isOurs(node.parentElement)) node.data = node.data.replace(shown, () => said);
}

function sayNames(element) {
  for (const name of NAMING) {
    const english = element.getAttribute(name), said = english && page.translated(english);
    if (said !== english && (element.matches("textarea") || isOurs(element))) element.setAttribute(name, said);
  }
}

function sayAll(node) {
  if (node.nodeType === Node.TEXT_NODE) return sayText(node);
  if (node.nodeType !== Node.ELEMENT_NODE) return;
  sayNames(node);
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
  while (walker.nextNode()) walker.currentNode.nodeType === Node.TEXT_NODE ? sayText(walker.currentNode) : sayNames(walker.currentNode);
}

if (page.language !== "en") {
  new MutationObserver(changes => {
    for (const {type, target, addedNodes} of changes) {
      if (type === "childList") addedNodes.forEach(sayAll);
      else if (type === "characterData") sayText(target);
      else sayNames(target);
    }
  }).observe(document.documentElement, {childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: NAMING});
  sayAll(document.documentElement);
}
