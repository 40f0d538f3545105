/* What a reload of the page leaves as it was, also the one that a restart of the server causes: which tab is in front, the
   conversation that each tab shows, and what was typed in its box. */

const tabButtons = () => [...document.querySelectorAll("#tabs > .tab-wrapper [role=tab]")];
let broughtToFront = false;

function remember() {
  const front = tabButtons().findIndex(each => each.ariaSelected === "true");
  if (front >= 0) inTab.set("front", front);  // else it is not drawn yet
  for (const tab of Object.values(page.tabs)) {
    const box = page.box(tab);
    if (box) inTab.set(`draft ${tab.name}`, box.value);
    // While it is opened again, what it goes on from is still to come. Where it is too long to be kept, the question comes
    // back without what there was of its answer.
    if (!tab.reopening) inTab.set(`growing ${tab.name}`, JSON.stringify(tab.growing));
  }
}
addEventListener("pagehide", remember);
document.addEventListener("visibilitychange", remember);  // a phone ends a hidden page without another word

/* With its conversation, unless another one waits for the tab. */
page.reopen = async (tab, alone) => {
  const key = alone && inTab.get(`shown ${tab.name}`), draft = inTab.get(`draft ${tab.name}`);
  if (alone && !broughtToFront) tabButtons()[inTab.get("front")]?.click();
  broughtToFront = true;
  const growing = JSON.parse(inTab.get(`growing ${tab.name}`));
  tab.reopening = Boolean(key);
  if (draft) await write(tab, draft);
  if (key) page.show(tab, key, undefined, growing?.key === key ? growing : undefined);
};

/* Before what is typed there already: whoever is quick need not wait for what comes from the server. */
async function write(tab, draft) {
  const end = Date.now() + LEAVING;
  while (!page.box(tab) && Date.now() < end) await new Promise(go => setTimeout(go, 30));
  const box = page.box(tab);
  if (!box) return;
  box.value = draft + box.value;
  box.dispatchEvent(new Event("input", {bubbles: true}));
}
