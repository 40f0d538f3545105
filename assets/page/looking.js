/* Where the model looked lies over the page as a dialog. It takes the focus when it comes and gives it back. Escape, its own
   button, the next question and another conversation close it. */

const DOUBLE_CLICK = 1000;  // milliseconds
const lookOf = tab => tab.panel.querySelector(".looked");

document.addEventListener("click", event => {
  const button = event.target.closest?.("[data-action=looked]"), tab = button && page.tabOf(button);
  if (!tab) return;
  if (tab.look?.button === button && event.timeStamp - tab.look.at < DOUBLE_CLICK) return event.stopPropagation();
  tab.look = {button, key: tab.record?.key, focused: false, at: event.timeStamp};  // it comes when it is its turn
}, true);

/* Keep the focus in the dialog, whose content is made anew with each step. */
page.focusLook = tab => new MutationObserver(() => {
  const dialog = lookOf(tab);
  if (!tab.look || !dialog && !tab.look.focused) return;
  if (dialog && (!tab.look.focused || document.activeElement === document.body)) {
    dialog.querySelector("button").focus();
    tab.look.focused = true;
  }
  if (!dialog) giveBack(tab);
}).observe(tab.panel.querySelector(".look"), {childList: true, subtree: true});

function giveBack(tab) {
  const {button} = tab.look;
  tab.look = null;
  if (document.activeElement === document.body) (button.isConnected ? button : page.box(tab))?.focus();
}

/* Whether there was one to be seen. */
page.closeLook = tab => {
  const dialog = lookOf(tab);
  if (!tab.look) return false;
  if (dialog?.contains(document.activeElement)) document.activeElement.blur();
  giveBack(tab);
  tab.trigger("close", {});
  return Boolean(dialog);
};
page.actions["close-look"] = (_, tab) => page.closeLook(tab);

page.changed.push((tab, wasBusy) => {
  if (tab.look && (tab.busy && !wasBusy || tab.record?.key !== tab.look.key)) page.closeLook(tab);
});
