"use strict";
// The page is complete without this: it adds the theme switch, the filter and the word's value.
for (const part of document.querySelectorAll(".js")) if (part.id !== "readout") part.hidden = false;

const themes = ["auto", "light", "dark"];
const button = document.getElementById("theme");
function recall() {
  try { return localStorage.getItem("rayxai-theme") || "auto"; } catch { return "auto"; } // file: may refuse
}
function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  button.textContent = `Theme: ${name}`;
  try { localStorage.setItem("rayxai-theme", name); } catch { /* kept for this page only */ }
}
let theme = recall();
if (theme !== "auto") setTheme(theme);
button.addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  setTheme(theme);
});

const form = document.getElementById("filter");
if (form) {
  const show = document.getElementById("show");
  const query = document.getElementById("query");
  const cards = [...document.querySelectorAll(".card")].map((card) => ({
    card,
    text: (card.dataset.id + " " + [...card.querySelectorAll(".view:first-child .heat")].map((p) => p.textContent).join(" ")).toLowerCase(),
    predicted: JSON.parse(card.dataset.predicted),
  }));
  const fits = ({ card, text, predicted }) => {
    const [kind, ...rest] = show.value.split(":");
    const label = rest.join(":");
    return text.includes(query.value.trim().toLowerCase()) && (
      kind === "all" || (kind === "wrong" && "wrong" in card.dataset)
      || (kind === "gold" && card.dataset.gold === label) || (kind === "predicted" && predicted.includes(label)));
  };
  const apply = () => {
    let shown = 0;
    for (const entry of cards) {
      const fit = fits(entry);
      entry.card.hidden = !fit;
      shown += fit;
    }
    document.getElementById("count").textContent = `${shown} of ${cards.length}`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}

const readout = document.getElementById("readout");
let marked = [];
function point(event) {
  for (const word of marked) word.classList.remove("on");
  const word = event.target instanceof Element ? event.target.closest(".panel .w") : null;
  readout.hidden = !word;
  marked = [];
  if (!word) return;
  readout.textContent = `${word.textContent}  ${word.title}`;
  // the same characters in the other columns, whatever their features are
  const offset = (w) => {
    const range = document.createRange();
    range.setStart(w.closest(".heat"), 0);
    range.setEndBefore(w);
    return range.toString().length;
  };
  const at = offset(word);
  marked = [...word.closest(".panel").querySelectorAll(".w")]
    .filter((w) => w.textContent === word.textContent && offset(w) === at);
  for (const w of marked) w.classList.add("on");
}
document.addEventListener("pointerover", point);
document.addEventListener("click", point);
