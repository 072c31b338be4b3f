/** Elements, found and made. */

/** An element of the page that is surely there. @param {string} id @returns {any} */
export function the(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no ${id}`);
  return found;
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string)} children
 */
export function html(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/** @param {string} tag @param {Record<string, number | string>} [attributes] */
export function svg(tag, attributes = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  return node;
}

/** Let a frame be no wider than its picture is within the window's height. @param {HTMLElement} frame @param {HTMLImageElement} image */
export function fit(frame, image) {
  image.addEventListener("load", () => {
    frame.style.maxWidth = `${(75 * image.naturalWidth) / image.naturalHeight}vh`;
  });
}

/** @param {number} value @param {number} low @param {number} high */
export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
