/* The settings that go with each question (vlm/serving/settings_panel.py), as this browser keeps them: their values, in the
   order of the panel's components. */

const SETTINGS = "ask-a-picture settings";

/* What is spoken, the last of them, is found out where the browser's language is another than the preset's. */
function defaultsHere(defaults) {
  const spoken = defaults.at(-1);
  return [...defaults.slice(0, -1), navigator.language.toLowerCase().startsWith(spoken) ? spoken : "auto"];
}

/* A number that is typed is over its slider's end until the field is left. */
const within = ranges => (value, place) => !ranges[place] || value === null ? value
  : Math.min(Math.max(value, ranges[place][0]), ranges[place][1]);

function storedSettings() {
  try {
    return JSON.parse(inBrowser.get(SETTINGS));
  } catch {
    return null;
  }
}

/* What is stored, or the defaults where there is nothing, or that of another version of the page. */
page.readSettings = (defaults, ranges) => {
  const stored = storedSettings();
  const fits = Array.isArray(stored) && stored.length === defaults.length
    && stored.every((value, place) => typeof (value ?? "") === typeof (defaults[place] ?? ""));
  return fits ? stored.map(within(ranges)) : defaultsHere(defaults);
};

page.writeSettings = (values, ranges) => {
  inBrowser.set(SETTINGS, JSON.stringify(values.map(within(ranges))));
  return [];
};

page.resetSettings = defaults => {
  inBrowser.remove(SETTINGS);
  return defaultsHere(defaults);
};
