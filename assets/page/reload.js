/* What a reload of the page leaves as it was, also the one that a restart of the server causes: which tab is in front, the
   conversation that each tab shows, and what was typed in its box. */

const tabButtons = () => [...document.querySelectorAll("#tabs > .tab-wrapper [role=tab]")];
let broughtToFront = false;

function remember() {
  sessionStorage.setItem("front", tabButtons().findIndex(each => each.ariaSelected === "true"));
  for (const tab of Object.values(page.tabs)) {
    sessionStorage.setItem(`draft ${tab.name}`, page.box(tab)?.value || "");
    try {
      sessionStorage.setItem(`growing ${tab.name}`, JSON.stringify(tab.growing));
    } catch {  // it is too long: the question comes back without what there was of its answer
      sessionStorage.removeItem(`growing ${tab.name}`);
    }
  }
}
addEventListener("pagehide", remember);
document.addEventListener("visibilitychange", remember);  // a phone ends a hidden page without another word

page.reopen = tab => {
  const key = sessionStorage.getItem(`shown ${tab.name}`), draft = sessionStorage.getItem(`draft ${tab.name}`);
  if (!broughtToFront) tabButtons()[sessionStorage.getItem("front")]?.click();
  broughtToFront = true;
  const growing = JSON.parse(sessionStorage.getItem(`growing ${tab.name}`));
  if (key) page.show(tab, key, draft, growing?.key === key ? growing : undefined);
  else if (draft) tab.trigger("fresh", {draft});
};
