/* The thumbs under an answer. A thumb up is sent at once, a thumb down with the right answer if there is one. */

const rightAnswer = button => button.closest(".answer").querySelector(".right-answer");

/* Which answer a form is of. Its number in the record changes as ways come and grow; place and words stay. */
function answerOf(form, {record}) {
  const at = numberOf(form), exchange = record.exchanges[record.ways[record.shown][at]];
  return JSON.stringify([record.key, at, exchange?.question, exchange?.answer?.text]);
}

function vote(button, tab, thumb, right = "") {
  delete tab.rightAnswers[answerOf(button, tab)];
  tab.trigger("voted", {at: Number(numberOf(button)), thumb, right_answer: right});
}

function openRightAnswer(button, open, tab) {
  const form = rightAnswer(button), answer = answerOf(form, tab);
  form.hidden = !open;
  if (!open) delete tab.rightAnswers[answer];
  else {
    tab.rightAnswers[answer] ??= form.querySelector("textarea").value;
    form.querySelector("textarea").focus();
  }
}

page.actions.thumb = (button, tab) => {
  const {thumb} = button.dataset;
  if (button.getAttribute("aria-pressed") === "true") vote(button, tab, "");
  else if (thumb === "up") vote(button, tab, thumb);
  else openRightAnswer(button, rightAnswer(button).hidden, tab);
};
page.actions["send-thumb-down"] = (button, tab) => {
  const form = rightAnswer(button);
  vote(button, tab, "down", form.querySelector("textarea").value);
  form.hidden = true;
};
page.actions["cancel-thumb-down"] = (button, tab) => openRightAnswer(button, false, tab);

/* An answer that is drawn anew has an empty form, which gets back what was written there. */
page.keepRightAnswers = tab => {
  tab.rightAnswers = {};
  const chat = tab.panel.querySelector(".conversation");
  chat.addEventListener("input", ({target}) => {
    const form = target.closest(".right-answer");
    if (form) tab.rightAnswers[answerOf(form, tab)] = target.value;
  });
  new MutationObserver(() => {
    if (!Object.keys(tab.rightAnswers).length) return;
    for (const form of chat.querySelectorAll(".right-answer[hidden]")) {
      const written = tab.rightAnswers[answerOf(form, tab)];
      if (written === undefined) continue;
      form.querySelector("textarea").value = written;
      form.hidden = false;
    }
  }).observe(chat, {childList: true, subtree: true});
};
