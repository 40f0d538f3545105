/* Listening: answers are read aloud by the browser's own speech synthesis; hands-free listens to the next question as well. */

const INTERRUPTS = 350;  // milliseconds of speech that end an answer
const PAUSE = 300;       // milliseconds of quiet between two noises, which are no speech
const BEGINS = 1500;     // milliseconds within which a browser that has voices begins to read

let hushed = 0;  // how often
page.hush = () => {
  hushed += 1;
  window.speechSynthesis?.cancel();
};

page.say = (tab, text, done = () => {}) => {
  let waiting = 0, isOver = false;
  const end = () => {
    clearTimeout(waiting);
    if (!isOver) done();
    isOver = true;
  };
  const silent = () => {
    note(tab, "This browser has no voice to read with.");
    end();
    page.hush();
  };
  if (!window.speechSynthesis) return silent();
  page.hush();
  const said = new SpeechSynthesisUtterance(text);
  said.voice = speechSynthesis.getVoices().find(voice => voice.name === page.settings.voice) || null;
  if (tab.name === "Image") said.lang = "en";  // as it answers, whatever the page's language
  waiting = setTimeout(() => { if (!speechSynthesis.getVoices().length) silent(); }, BEGINS);
  said.onstart = () => clearTimeout(waiting);
  said.onend = said.onerror = end;
  speechSynthesis.speak(said);
};

page.actions.read = (button, tab) => {
  if (window.speechSynthesis?.speaking) return page.hush();
  button.textContent = "Stop reading";
  page.say(tab, page.words(button, tab), () => { button.textContent = "Read aloud"; });
};

/* Show the settings of a tab's bar as they are. */
page.showVoices = tab => {
  page.set("handsFree", false);  // nobody expects a page to listen when it is opened
  for (const input of tab.panel.querySelectorAll("input[data-setting]")) input.checked = Boolean(page.settings[input.dataset.setting]);
  const menu = tab.panel.querySelector("select[data-setting=voice]");
  if (!menu || !window.speechSynthesis) return;
  const fill = () => {
    menu.replaceChildren(menu.options[0], ...speechSynthesis.getVoices().map(voice => new Option(`${voice.name} (${voice.lang})`, voice.name)));
    menu.value = page.settings.voice || "";
  };
  fill();
  speechSynthesis.addEventListener?.("voiceschanged", fill);
};

// Hands-free.

const handsFreeBox = tab => tab.panel.querySelector("[data-setting=handsFree]");
const isHandsFree = tab => Boolean(handsFreeBox(tab)?.checked);

function endHandsFree(tab) {
  if (!isHandsFree(tab)) return;
  page.set("handsFree", false);
  handsFreeBox(tab).checked = false;
  page.hush();
  note(tab, "");
}

page.actions.handsFree = (box, tab) => {
  if (box.checked) return listen(tab);
  page.hush();
  note(tab, "");
  page.dropRecording();
};

/* The answer aloud, and then the next question; whoever speaks meanwhile interrupts it. */
async function answerAloud(tab) {
  note(tab, "Answering…");
  const before = hushed, stream = await microphone(tab);
  const stopMeter = stream ? meter(stream, speech => { if (speech >= INTERRUPTS) page.hush(); }, PAUSE) : () => {};
  const done = () => {
    stopMeter();
    release(stream);
    if (isHandsFree(tab) && !recording) listen(tab);
  };
  if (hushed === before) page.say(tab, page.lastAnswer(tab), done);
  else done();  // while the browser asked for the microphone
}

page.changed.push((tab, wasBusy) => {
  if (!wasBusy || tab.busy) return;
  if (!tab.answered || !page.lastAnswer(tab)) {
    if (isHandsFree(tab)) listen(tab);
    return;
  }
  const stopped = tab.leaving || wayShown(tab.record).at(-1).answer?.stage !== "done";
  if (isHandsFree(tab)) stopped ? listen(tab) : answerAloud(tab);
  else if (!stopped && page.settings.readAlways) page.say(tab, page.lastAnswer(tab));
});
