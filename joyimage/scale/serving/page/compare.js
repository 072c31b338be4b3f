/** Two pictures, one over the other, parted by a line that a slider moves. */
import { fit, html } from "./elements.js";

/** @param {string} before an address @param {string} after an address */
export function compare(before, after) {
  const slider = html("input", { type: "range", min: "0", max: "100", value: "50", ariaLabel: "Before and after" });
  const first = html("img", { src: before, alt: "Before", className: "before" });
  const last = html("img", { alt: "After" });
  const figure = html("figure", { className: "compare" }, last, first, slider);
  fit(figure, last);
  last.src = after;
  slider.addEventListener("input", () => figure.style.setProperty("--split", `${slider.value}%`));
  const names = html("div", { className: "names", ariaHidden: "true" }, html("span", {}, "before"), html("span", {}, "after"));
  return html("div", {}, figure, names);
}
