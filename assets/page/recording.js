/* Speaking: one click starts a recording, the next one sends it, and it is kept until the server has heard it. */

const SPOKEN_FROM = 0.02;   // loudness (root mean square of samples within [-1, 1]) that counts as speech
const SILENCE = 1300;       // milliseconds of quiet that end a question
const FORGOTTEN = 20000;    // milliseconds of quiet that are not kept, while hands-free waits for a question
const TAKEN_WITHIN = 3000;  // milliseconds after which a question that is not in the chat was refused, as far as one sees
const NOT_SENT = "The recording could not be sent. Press Speak to send it again, or Escape to drop it.";
const NOT_ANSWERED = "The recording got no answer. Press Speak to send it again, or Escape to drop it.";
const DROPPED = "The recording was dropped.";
const PLAIN_HTTP = "Browsers give the microphone only to https pages and to this machine's own (localhost). Serve the page over "
  + "https, or open it through a tunnel: ssh -L 7860:localhost:7860 HOST, then http://localhost:7860.";

let recording = null;  // {tab, recorder, stream, discard, anew, stopMeter} while it runs

const after = milliseconds => new Promise(go => setTimeout(go, milliseconds));
const lastAsked = record => record?.exchanges.length ? wayShown(record).at(-1) : null;
function note(tab, text) {
  tab.panel.querySelector(".bar-note").textContent = text;
  offerToDrop(tab);
}

/* What runs or waits can be dropped by a button too: a phone has no Escape. */
function offerToDrop(tab) {
  tab.panel.querySelector("[data-action=drop]").hidden = recording?.tab !== tab && !tab.unsent;
}

function showRecording(tab, on) {
  const button = tab.panel.querySelector("[data-action=speak]");
  button.ariaPressed = String(on);
  button.textContent = on ? "Stop and send" : "Speak";
}

async function microphone(tab) {
  if (!navigator.mediaDevices?.getUserMedia) return note(tab, PLAIN_HTTP);
  try {
    return await navigator.mediaDevices.getUserMedia({audio: {echoCancellation: true, noiseSuppression: true}});
  } catch (problem) {
    note(tab, problem.name === "NotFoundError" ? "There is no microphone here."
      : "The microphone was not allowed. Allow it beside the page's address, and try again.");
  }
}

/* Call `heard(milliseconds of speech, of quiet since)` ten times a second; returns what ends it. Speech before `pause`
   milliseconds of quiet does not count. */
function meter(stream, heard, pause = Infinity) {
  const context = new AudioContext(), analyser = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  let speech = 0, quiet = 0, before = performance.now();
  const timer = setInterval(() => {
    const since = performance.now() - before, passed = Math.min(since, document.hidden ? 1100 : 300);  // a page that was busy heard nothing
    before += since;
    analyser.getFloatTimeDomainData(samples);
    const loud = Math.sqrt(samples.reduce((sum, each) => sum + each * each, 0) / samples.length) > SPOKEN_FROM;
    if (loud) { speech += passed; quiet = 0; } else quiet += passed;
    if (quiet > pause) speech = 0;
    heard(speech, quiet);
  }, 100);
  return () => { clearInterval(timer); context.close(); };
}

let asking = null;  // {tab} while the browser asks for the microphone; a second click must not start a second recording

const release = stream => stream?.getTracks().forEach(track => track.stop());

async function listen(tab) {
  if (asking || recording) return;
  if (tab.unsent) return;
  page.hush();
  const mine = asking = {tab}, stream = await microphone(tab);
  const wanted = asking === mine && tab.panel.offsetParent;
  if (asking === mine) asking = null;
  if (stream && wanted) record(tab, stream);
  else release(stream);
}

function record(tab, stream) {
  showRecording(tab, true);
  begin(tab, stream);
  note(tab, "Listening…");
}

function begin(tab, stream) {
  const recorder = new MediaRecorder(stream), pieces = [];
  const mine = recording = {tab, recorder, stream, discard: false, anew: false, stopMeter: () => {}};
  recorder.ondataavailable = ({data}) => pieces.push(data);
  recorder.onstop = async () => {
    mine.stopMeter();
    if (mine.anew && !mine.discard) return begin(tab, stream);
    release(stream);
    recording = null;
    showRecording(tab, false);
    if (mine.discard) return note(tab, DROPPED);
    // Endings of sound: Gradio takes .webm and .mp4 for films
    const type = recorder.mimeType.split(";")[0], ending = {"audio/mp4": "m4a", "audio/ogg": "ogg"}[type] || "weba";
    send(tab, new File(pieces, `spoken.${ending}`, {type}));
  };
  if (isHandsFree(tab)) mine.stopMeter = meter(stream, (speech, quiet) => {
    const isSpoken = speech > 200;
    if (recorder.state !== "recording" || quiet < (isSpoken ? SILENCE : FORGOTTEN)) return;
    mine.anew = !isSpoken;  // or the quiet would be sent with the question, and be over the longest recording in the end
    recorder.stop();
  });
  recorder.start();
}

/* What was said is kept until its question stands in the chat: it is asked after the answer under way, and once more where the
   server could not be reached or did not take it. What was `chosen` is on the disk as well. */
async function send(tab, file, chosen = false) {
  const mine = tab.sending = {};
  tab.unsent = file;
  note(tab, "Sending…");
  const sent = await tab.upload(file).catch(() => null);
  while (sent && tab.busy && tab.sending === mine) await after(100);
  if (tab.unsent !== file || tab.sending && tab.sending !== mine) return;  // it was dropped, or is sent once more
  if (sent ? !tab.sending : !chosen) return note(tab, NOT_SENT);
  tab.unsent = null;
  offerToDrop(tab);
  if (!sent) return note(tab, "The recording could not be sent. Please try again in a moment.");
  if (chosen) note(tab, "");
  else tab.asked = {file, path: sent.path};
  tab.trigger("spoken", {path: sent.path});
  await after(TAKEN_WITHIN);
  if (tab.asked?.file === file) keepToSend(tab, file, NOT_SENT);  // it may still come, and be `taken`
}

function keepToSend(tab, file, why) {
  if (tab.unsent) return;
  tab.unsent = file;
  note(tab, why);
}

// The server puts a question that got no answer back into the box. The Voice tab has none.
page.changed.push((tab, wasBusy) => {
  if (tab.busy && !wasBusy) {
    const taken = tab.asked && lastAsked(tab.record)?.recording === tab.asked.path;
    tab.answering = taken && !page.box(tab) ? tab.asked.file : null;
    if (taken && tab.unsent === tab.asked.file) tab.unsent = null;
    if (taken) tab.asked = null;
    tab.stopped = false;
    if (!tab.unsent) note(tab, "");
  }
  if (!wasBusy || tab.busy) return;
  const failed = !tab.answered && !tab.unheard && !tab.leaving && !tab.stopped;
  if (tab.answering && failed) keepToSend(tab, tab.answering, NOT_ANSWERED);
  tab.answering = null;
});

document.addEventListener("click", ({target}) => {
  const tab = target.closest?.(".stop-button, .stop-answer") && page.tabOf(target);
  if (tab) tab.stopped = true;
}, true);

/* A recording that waits belongs to the conversation that is left: it is not asked in another one by itself. */
page.keepUnsent = tab => { tab.sending = null; };

page.actions.speak = (button, tab) => {
  if (recording) recording.recorder.stop();
  else if (tab.unsent) send(tab, tab.unsent);
  else listen(tab);
};

page.actions.drop = () => page.dropRecording();

/* End the recording under way without sending it, and hands-free with it. Whether there was one. */
page.dropRecording = () => {
  const running = asking || (recording?.recorder.state === "recording" ? recording : null), shown = page.shown();
  if (!running && !shown?.unsent) return false;
  if (!running) {
    shown.unsent = null;
    note(shown, DROPPED);
  } else if (running === recording) {
    recording.discard = true;
    recording.recorder.stop();
  }
  asking = null;
  endHandsFree(running ? running.tab : shown);
  return true;
};

/* Nobody is listened to on a tab that is not shown, be it left by a click or by the server: nothing there would tell of it. */
page.listenWhereShown = tab => new ResizeObserver(() => {
  if (tab.panel.offsetParent) return;
  if ((asking || recording)?.tab === tab) page.dropRecording();
  endHandsFree(tab);
}).observe(tab.panel);

document.addEventListener("change", ({target}) => {
  const tab = target.dataset?.action === "recording" && page.tabOf(target);
  if (!tab || !target.files.length) return;
  if (tab.unsent) note(tab, NOT_SENT);  // one after the other
  else send(tab, target.files[0], true);
  target.value = "";
});
