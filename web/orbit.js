/** The view of Camera Orbit: the arc with its views, ends to drag, and the results of a run as a filmstrip. */
import { move } from "./camera.js";
import { assign, decided, value } from "./graph.js";
import { results, subject } from "./pictures.js";
import { clamp, drag, follow, html, keys, mount, set, shade, svg, within } from "./shared.js";
import { CLOSE, arc, at, card, depth, nearArc, pointIn, project, scene, snapped, wrapped, yawOf } from "./space.js";
import { t } from "./text.js";

const HEIGHT = 300; // pixels of the graph
const FULL = 360;
const INPUTS = ["yaw_start", "yaw_end", "views", "pitch"];

/** @typedef {{start: number, end: number, views: number, pitch: number}} Orbit */

/** The yaws of the views, at equal steps; a full turn ends one step short of its start. @param {Orbit} orbit */
export function yaws({ start, end, views }) {
  const turn = end - start;
  const steps = Math.abs(turn) === FULL ? views : Math.max(1, views - 1);
  return Array.from({ length: views }, (_, i) => start + (turn * i) / steps);
}

/** @param {import("./types").GraphNode} node */
export function orbitView(node) {
  /** @returns {Orbit} */
  const orbit = () => ({
    start: Number(value(node, "yaw_start")),
    end: Number(value(node, "yaw_end")),
    views: Number(value(node, "views")),
    pitch: clamp(Number(value(node, "pitch")), -90, 90),
  });
  const { drawing, frame, near } = scene(CLOSE);
  const picture = card();
  const [path, nearPath] = [1, 2].map(() => svg("path", { class: "joyimage-arc" }));
  const [back, front] = [svg("g"), svg("g")];
  const ends = {
    start: svg("circle", { r: 8, class: "joyimage-knob joyimage-cool", "data-end": "yaw_start" }),
    end: svg("circle", { r: 8, class: "joyimage-knob joyimage-warm", "data-end": "yaw_end" }),
  };
  for (const [name, end] of Object.entries(ends)) end.append(svg("title", {}, t(`orbit_${name}`)));
  drawing.append(path, back, picture.element, near, nearPath, front, ends.end, ends.start);
  const shown = html("img", { alt: "", draggable: "false", class: "joyimage-result" });
  const stage = html("div", { class: "joyimage-stage joyimage-space", tabindex: 0, role: "group", "aria-label": t("orbit") });
  stage.append(drawing, shown);
  const status = html("span", { class: "joyimage-status", "aria-live": "polite" });
  const film = html("div", { class: "joyimage-film", tabindex: 0, role: "slider", "aria-label": t("film") });
  const element = html("div", {}, stage, html("div", { class: "joyimage-bar" }, status), film);

  /** @type {string[]} */
  let pictures = [];
  let current = -1; // the result that is shown; -1 shows the scene

  /** @param {Orbit} now */
  function draw(now) {
    const { start, end, views, pitch } = now;
    set(path, { d: arc((yaw) => at(yaw, pitch), start, end) });
    set(nearPath, { d: nearArc((yaw) => at(yaw, pitch), start, end) });
    back.replaceChildren();
    front.replaceChildren();
    yaws(now).forEach((yaw, i) => {
      const place = at(yaw, pitch);
      const dot = svg("circle", { r: 4, class: "joyimage-view", "aria-current": i === current });
      move(dot, project(place));
      (depth(place) < 0 ? back : front).append(dot);
    });
    move(ends.start, project(at(start, pitch)));
    move(ends.end, project(at(end, pitch)));
    const turn = Math.abs(end - start);
    const valid = turn <= FULL && (turn > 0 || views === 1);
    const angles = yaws(now).map((yaw) => `${Number(wrapped(yaw).toFixed(1))}°`);
    status.textContent = valid ? `${views} ${t("views")} · ${angles.join(" ")}` : t("orbit_invalid");
    status.classList.toggle("joyimage-wrong", !valid);
  }

  /** @param {number} index */
  function scrub(index) {
    current = pictures.length ? clamp(index, -1, pictures.length - 1) : -1;
    set(shown, { src: pictures[current] });
    [...film.children].forEach((frame, i) => set(frame, { "aria-current": i === current }));
    const range = { "aria-valuemin": 1, "aria-valuemax": pictures.length, "aria-valuenow": Math.max(1, current + 1) };
    set(film, { ...range, hidden: !pictures.length });
    draw(orbit());
  }

  drag(stage, (press) => {
    stage.focus({ preventScroll: true });
    const name = /** @type {Element} */ (press.target).getAttribute("data-end");
    if (current >= 0) scrub(-1);
    if (!name) return null;
    const before = orbit();
    const [kept, other] = name === "yaw_start" ? [before.start, before.end] : [before.end, before.start];
    let last = yawOf(pointIn(press, frame));
    let angle = kept; // goes on past half a turn
    return {
      move(event) {
        const here = yawOf(pointIn(event, frame));
        angle = clamp(angle + wrapped(here - last), -FULL, FULL);
        last = here;
        assign(node, name, clamp(snapped(angle, event.shiftKey), other - FULL, other + FULL));
        look();
      },
      cancel() {
        assign(node, name, kept);
        look();
      },
    };
  });
  keys(stage, (key, { shiftKey }) => {
    const step = (Number(key === "ArrowRight") - Number(key === "ArrowLeft")) * (shiftKey ? 1 : 15);
    if (!step) return false;
    const { start, end } = orbit();
    assign(node, "yaw_end", clamp(end + step, Math.max(-FULL, start - FULL), Math.min(FULL, start + FULL)));
    look();
    return true;
  });

  drag(film, (press) => {
    film.focus({ preventScroll: true });
    /** @param {MouseEvent} event */
    const follow = (event) => scrub(clamp(Math.floor(within(event, film).x * pictures.length), 0, pictures.length - 1));
    follow(press);
    return { move: follow, cancel: () => scrub(-1) };
  });
  keys(film, (key) => {
    const step = Number(key === "ArrowRight") - Number(key === "ArrowLeft");
    if (!step && key !== "Escape") return false;
    scrub(step ? Math.max(0, current + step) : -1);
    return true;
  });

  const look = follow(
    node,
    () => ({ ...orbit(), source: subject(node), made: results(node), taken: decided(node, INPUTS) }),
    ({ source, made, taken, ...now }) => {
      shade(element, taken);
      picture.show(source);
      if (made.join() !== pictures.join()) {
        pictures = made;
        film.replaceChildren(...made.map((src) => html("img", { src, alt: "", draggable: "false" })));
        scrub(-1);
      }
      draw(now);
    },
  );
  set(film, { hidden: true });
  return mount(node, "view", element, HEIGHT);
}
