/** Several boxes drawn by hand on a picture. Their value is a JSON list in fractions of the picture's sides. */
import { ARROWS, between, boxOf, easel, FIRST, grown, handles, HEIGHT, moved, parsed, resized, trimmed, WIDTH } from "./box.js";
import { boxNumbers } from "./box_numbers.js";
import { refusal } from "./refusal.js";
import { button, drag, follow, html, keys, mount, set, svg, within } from "./shared.js";
import { t } from "./text.js";

/** @typedef {import("./box.js").Box} Box */
/** @typedef {import("./types").GraphNode} GraphNode */

const LINE = 2; // pixels of the graph, like all sizes here
const LETTER = 11; // the height of a number
const INSET = 5; // from the corner, where the box's handle is, to its number
const LABEL = 15; // the height of the field around it, which is wider by
const DIGIT = 7; // for every digit
const ASIDE = 0.03; // of the picture's sides, from one box of the keyboard's to the next
const RED = "#c00"; // of the handles' edges
const FONT = "600 1px Inter, system-ui, sans-serif"; // of a size that is set apart

/** The boxes of a stored value; those that are none are left out. @param {string} text @returns {Box[]} */
function read(text) {
  const stored = parsed(text);
  return Array.isArray(stored) ? stored.flatMap((entry) => boxOf(entry) ?? []) : [];
}

/** A box as it is drawn: its line, the area that takes the pointer, and its number. @param {string} number */
function mark(number) {
  const outline = svg("rect", { class: "joyimage-outline" });
  const body = svg("rect", { class: "joyimage-body" });
  const plate = svg("rect", { fill: RED });
  const digits = svg("text", { fill: "#fff", "text-anchor": "middle", style: `font: ${FONT}` }, number);
  const label = svg("g", { class: "joyimage-box-number", "pointer-events": "none" }, plate, digits);

  /** @param {{x: number, y: number, width: number, height: number}} box @param {number} scale pixels of the picture in one of the graph */
  function place(box, scale) {
    const line = LINE * scale;
    const [height, width] = [LABEL * scale, (LABEL + DIGIT * (number.length - 1)) * scale];
    set(outline, { ...box, "stroke-width": line });
    set(body, box);
    const [left, top] = [box.x + INSET * scale, box.y + INSET * scale];
    set(plate, { x: left, y: top, width, height, rx: height / 5 });
    set(digits, { x: left + width / 2, y: top + height / 2 + LETTER * scale * 0.36 });
    digits.style.fontSize = `${LETTER * scale}px`;
  }

  return { outline, body, label, place };
}

/** @param {GraphNode} node @param {string} name */
export function boxesWidget(node, name) {
  const board = easel(node, node, t("boxes"), () => draw());
  const { element, stage, drawing, frame } = board;
  const status = html("span", { class: "joyimage-status", "aria-live": "polite" });
  const clear = button(t("clear"), () => change([], -1));
  const numbers = boxNumbers(FIRST, (box) => (put(box), board.reveal(box)));
  element.append(html("div", { class: "joyimage-bar joyimage-remarks" }, status, board.lens.element));
  element.append(html("div", { class: "joyimage-bar" }, numbers.element, clear));

  const grips = handles();
  const [lines, bodies, labels] = [svg("g"), svg("g"), svg("g")];
  drawing.append(lines, bodies, labels, ...grips.elements);

  let text = "";
  let chosen = -1; // the index of the selected box, or none's
  let refused = ""; // why the server did not run with the boxes
  /** @type {ReturnType<typeof mark>[]} */
  let marks = [];

  /** @param {Box[]} boxes @param {number} choice */
  function change(boxes, choice) {
    store(boxes.length ? JSON.stringify(boxes.map(trimmed)) : "", choice);
  }

  /** @param {string} to @param {number} choice */
  function store(to, choice) {
    if (text !== to) refused = "";
    [text, chosen] = [to, choice];
    draw();
  }

  /** Set the selected box, or add one where none is. @param {Box} box */
  function put(box) {
    const boxes = read(text);
    if (chosen < 0) change([...boxes, box], boxes.length);
    else change(boxes.map((each, i) => (i === chosen ? box : each)), chosen);
  }

  function draw() {
    board.place();
    const boxes = read(text);
    if (chosen >= boxes.length) chosen = -1;
    if (marks.length !== boxes.length) renew(boxes.length);
    const scale = board.scale();
    boxes.forEach((box, i) => marks[i].place(board.scaled(box), scale));
    pile(boxes);
    element.classList.toggle("joyimage-none", !boxes.length);
    grips.elements.forEach((grip) => set(grip, { display: chosen < 0 ? "none" : null }));
    if (chosen >= 0) grips.place(board.scaled(boxes[chosen]), scale);
    set(clear, { disabled: !text });
    remark(boxes);
    numbers.show(boxes[chosen] ?? null, board.measured());
  }

  /** @param {number} count */
  function renew(count) {
    marks = Array.from({ length: count }, (_, i) => mark(String(i + 1)));
    lines.replaceChildren(...marks.map(({ outline }) => outline));
    labels.replaceChildren(...marks.map(({ label }) => label));
    bodies.replaceChildren();
  }

  /** Lay small boxes over large ones, so that each can be taken; a pressed element stays where it is.
   * @param {Box[]} boxes */
  function pile(boxes) {
    const order = boxes.map((_, i) => i).sort((a, b) => boxes[b].w * boxes[b].h - boxes[a].w * boxes[a].h);
    const wanted = order.map((i) => marks[i].body);
    if (wanted.some((body, i) => bodies.children[i] !== body)) bodies.replaceChildren(...wanted);
  }

  /** Say what is to be said of the boxes. @param {Box[]} boxes */
  function remark(boxes) {
    const hint = t(board.narrow() ? "box_extreme" : "boxes_empty");
    const one = chosen >= 0 && `${t("boxes_one")} ${chosen + 1} / ${boxes.length} · ${board.describe(boxes[chosen])}`;
    status.textContent = refused || one || (boxes.length ? `${t("boxes_all")} ${boxes.length}` : hint);
    set(status, { title: status.textContent });
    status.classList.toggle("joyimage-wrong", Boolean(refused));
  }

  drag(stage, (press) => {
    stage.focus({ preventScroll: true });
    const [start, before, kept, last] = [within(press, frame), read(text), text, chosen];
    const target = /** @type {Element} */ (press.target);
    const handle = target.getAttribute("data-handle");
    const taken = press.shiftKey ? -1 : handle ? chosen : marks.findIndex(({ body }) => body === target);
    store(text, taken);
    return {
      move(event) {
        const here = within(event, frame);
        const by = { x: here.x - start.x, y: here.y - start.y };
        if (handle && taken >= 0) put(resized(before[taken], handle, by));
        else if (taken >= 0) put(moved(before[taken], by));
        else if (board.far(by)) put(between(start, here));
      },
      cancel: () => store(kept, last),
      end: () => flat(read(text)[chosen]) && store(kept, last),
    };
  });

  /** Whether a box covers nothing, so that nobody could see it. @param {Box | undefined} box */
  function flat(box) {
    const { width, height } = box ? board.scaled(box) : { width: 1, height: 1 };
    return Math.min(width, height) < 1;
  }

  keys(stage, (key, { shiftKey }) => {
    const boxes = read(text);
    const by = ARROWS[key];
    if (board.zoomed(key)) return true;
    if (key === "Tab") return step(shiftKey ? -1 : 1, boxes);
    if (key === "Delete" || key === "Backspace") remove(boxes);
    else if (key === "Enter" || (by && !boxes.length)) change([...boxes, another(boxes)], boxes.length);
    else if (by && chosen < 0) step(1, boxes);
    else if (by) put(shiftKey ? grown(boxes[chosen], by) : moved(boxes[chosen], by));
    else return false;
    const now = read(text)[chosen];
    if (now) board.reveal(now);
    return true;
  });

  /** A box by the keyboard, beside those before. @param {Box[]} boxes */
  const another = ({ length }) => moved(FIRST, { x: ASIDE * length, y: ASIDE * length });

  /** Select the next box or the one before. Beyond the last and the first, the key leaves the picture.
   * @param {1 | -1} way @param {Box[]} boxes @returns {boolean} whether there is one */
  function step(way, boxes) {
    const next = chosen + way;
    if (!boxes[next]) return false;
    store(text, next);
    board.reveal(boxes[next]);
    return true;
  }

  /** Remove the selected box and select the one that takes its number. @param {Box[]} boxes */
  function remove(boxes) {
    if (chosen < 0) return;
    const rest = boxes.filter((_, i) => i !== chosen);
    change(rest, Math.min(chosen, rest.length - 1));
  }

  follow(node, situation, (now) => {
    refused = now.refused;
    board.show(now);
  });

  /** What the drawing depends on besides the value. */
  function situation() {
    return { ...board.situation(), refused: refusal(node, name, text) };
  }

  return mount(
    node,
    name,
    element,
    HEIGHT,
    {
      getValue: () => text,
      /** @param {string} [stored] */
      setValue(stored) {
        text = stored ?? "";
        draw();
      },
    },
    WIDTH,
  );
}
