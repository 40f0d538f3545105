/* Formulas are drawn by the KaTeX that Gradio has for its own Markdown (`KATEX`: the addresses of its code and its style).
   Where that is missing, or does not understand one, its LaTeX stays. */

let katex = null;  // its loading, from the first formula on
let drawFormula = () => {};

function loadKatex() {
  const [code, style] = KATEX;
  document.head.append(Object.assign(document.createElement("link"), {rel: "stylesheet", href: style}));
  return import(new URL(code, document.baseURI)).then(({default: {render}}) => {
    drawFormula = element => {
      const latex = element.textContent, drawn = document.createElement("span");
      try {
        render(latex.slice(2, -2), drawn, {displayMode: !latex.startsWith("\\("), maxSize: 20});
      } catch {
        return;
      }
      drawn.className = "formula";
      element.replaceWith(drawn);
    };
  }).catch(problem => console.warn(problem));
}

/* Before they are painted, also in an answer that grows. */
page.drawFormulas = chat => {
  const found = chat.querySelectorAll("code.formula");
  if (!found.length || !KATEX.length) return;
  found.forEach(each => drawFormula(each));
  katex ||= loadKatex().then(() => page.drawFormulas(chat));
};
