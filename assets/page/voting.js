/* The thumbs under an answer. A thumb up is sent at once, a thumb down with the right answer if there is one. */

const rightAnswer = button => button.closest(".answer").querySelector(".right-answer");

function vote(button, tab, thumb, right = "") {
  tab.trigger("voted", {at: Number(button.closest("[data-at]").dataset.at), thumb, right_answer: right});
}

function openRightAnswer(button, open) {
  rightAnswer(button).hidden = !open;
  if (open) rightAnswer(button).querySelector("textarea").focus();
}

page.actions.thumb = (button, tab) => {
  const {thumb} = button.dataset;
  if (button.getAttribute("aria-pressed") === "true") vote(button, tab, "");
  else if (thumb === "up") vote(button, tab, thumb);
  else openRightAnswer(button, rightAnswer(button).hidden);
};
page.actions["send-thumb-down"] = (button, tab) => {
  vote(button, tab, "down", rightAnswer(button).querySelector("textarea").value);
  openRightAnswer(button, false);
};
page.actions["cancel-thumb-down"] = button => openRightAnswer(button, false);
