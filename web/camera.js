/** The view of Camera Control: an orbiting camera to drag. The node's yaw, pitch and zoom are what it shows and sets. */
import { assign, decided, value } from "./graph.js";
import { subject } from "./pictures.js";
import { button, choices, clamp, drag, follow, html, keys, mount, remember, set, shade, svg } from "./shared.js";
import {
  SNAP, WIDE, ZOOMS, arc, at, card, cone, depth, pointIn, project, scene, sentence, snapped, wrapped, yawOf,
} from "./space.js";
import { t } from "./text.js";

const HEIGHT = 470; // pixels of the graph
const RISE = 0.72; // radius of the arc of pitch, inside the ring, so that its handle does not hide the ring's
const INPUTS = ["yaw", "pitch", "zoom"];
const SPEED = 0.6; // degrees per unit of the drawing
const PERSPECTIVE = 3.2; // the distance from which the camera's view is drawn, in heights of the card
const DIRECTIONS = { front: 0, "front right": 45, right: 90, "rear right": 135, rear: 180, "rear left": -135, left: -90, "front left": -45 };
const HEIGHTS = { low: -30, eye: 0, high: 45 };
const NEARNESS = /** @type {const} */ (["out", "unchanged", "in"]);
/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** @typedef {{yaw: number, pitch: number, zoom: keyof typeof ZOOMS}} Camera */

/** @param {import("./types").GraphNode} node @param {import("./types").GraphNode} [host] a node around it that is to have the view */
export function cameraView(node, host = node) {
  /** @returns {Camera} */
  const camera = () => ({
    yaw: Number(value(node, "yaw")),
    pitch: clamp(Number(value(node, "pitch")), -90, 90),
    zoom: value(node, "zoom") in ZOOMS ? value(node, "zoom") : "unchanged",
  });
  /** @param {Partial<Camera>} to */
  const turn = (to) => {
    for (const [name, number] of Object.entries(to)) assign(node, name, number);
    look();
  };

  const { drawing, frame, near } = scene(WIDE);
  const picture = card();
  const marks = {
    rise: svg("path", { class: "joyimage-rise" }),
    ray: svg("path", { class: "joyimage-ray" }),
    cone: svg("path", { class: "joyimage-camera", "data-part": "camera" }),
    yaw: svg("circle", { r: 7, class: "joyimage-knob joyimage-warm", "data-part": "yaw" }),
    pitch: svg("circle", { r: 7, class: "joyimage-knob joyimage-cool", "data-part": "pitch" }),
    zoom: svg("circle", { r: 6, class: "joyimage-knob joyimage-gold", "data-part": "zoom" }),
  };
  const behind = svg("g");
  const before = svg("g");
  drawing.append(behind, picture.element, near, marks.rise, before, marks.yaw, marks.pitch);

  const seen = html("img", { alt: "", draggable: "false" });
  const seenCard = html("div", { class: "joyimage-seen-card" }, seen);
  const seenView = html("div", { class: "joyimage-seen", "aria-hidden": "true" }, seenCard);
  const toggle = button(t("camera_view"), () => set(toggle, { "aria-pressed": String(flip()) }), { "aria-pressed": "false" });
  toggle.classList.add("joyimage-toggle");
  const flip = () => stage.classList.toggle("joyimage-through");
  const stage = html("div", { class: "joyimage-stage joyimage-space", tabindex: 0, role: "group", "aria-label": t("camera") });
  stage.append(drawing, seenView);

  const directions = choices(t("direction"), labelled(DIRECTIONS), (yaw) => turn({ yaw }));
  directions.element.classList.add("joyimage-four");
  const heights = choices(t("height"), labelled(HEIGHTS), (pitch) => turn({ pitch }));
  const zooms = choices(t("zoom"), NEARNESS.map((zoom) => [t(zoom), zoom]), (zoom) => turn({ zoom }));
  const hint = html("div", { class: "joyimage-note" }, t("camera_hint"));
  const text = html("output", { class: "joyimage-sentence", "aria-label": t("sentence"), "aria-live": "polite" });
  const element = html(
    "div", {}, html("div", { class: "joyimage-around" }, stage, toggle), hint,
    directions.element, html("div", { class: "joyimage-pair" }, heights.element, zooms.element), text,
  );

  /** @param {Camera} camera */
  function draw({ yaw, pitch, zoom }) {
    const distance = ZOOMS[zoom];
    const place = at(yaw, pitch, distance);
    set(marks.rise, { d: arc((angle) => at(yaw, angle, RISE), -90, 90) });
    const end = project(place);
    set(marks.ray, { d: `M0 0L${end.x} ${end.y}` });
    set(marks.cone, { d: cone(yaw, pitch, distance) });
    move(marks.yaw, project(at(yaw, 0)));
    move(marks.pitch, project(at(yaw, pitch, RISE)));
    move(marks.zoom, end);
    (depth(place) < 0 ? behind : before).append(marks.ray, marks.cone, marks.zoom);
    const closer = ZOOMS.unchanged / distance;
    seenCard.style.transform =
      `perspective(${PERSPECTIVE * 100}cqh) scale(${closer}) rotateX(${-pitch}deg) rotateY(${-yaw}deg)`;
    directions.mark((angle) => wrapped(yaw) === angle);
    heights.mark((angle) => pitch === angle);
    zooms.mark((option) => zoom === option);
    text.textContent = sentence(yaw, pitch, zoom);
  }

  drag(stage, (press) => {
    stage.focus({ preventScroll: true });
    const [start, before] = [pointIn(press, frame), camera()];
    const through = stage.classList.contains("joyimage-through");
    const part = through ? "scene" : /** @type {Element} */ (press.target).getAttribute("data-part") ?? "camera";
    // A camera behind the picture moves left on the screen as it goes right around the scene, and so does a scene
    // that is turned under a camera that stands still.
    const sense = through || depth(at(before.yaw, 0)) < 0 ? -1 : 1;
    return {
      move(event) {
        const here = pointIn(event, frame);
        const free = event.shiftKey;
        const yaw = part === "yaw" ? yawOf(here) : before.yaw + SPEED * sense * (here.x - start.x);
        const pitch = before.pitch + SPEED * (through ? 1 : -1) * (here.y - start.y);
        if (part === "zoom") turn({ zoom: nearest(before, here) });
        else {
          if (part !== "pitch") turn({ yaw: wrapped(snapped(yaw, free)) });
          if (part !== "yaw") turn({ pitch: clamp(snapped(pitch, free), -90, 90) });
        }
      },
      cancel: () => turn(before),
    };
  });
  stage.addEventListener("dblclick", (event) => {
    event.stopPropagation();
    turn({ yaw: 0, pitch: 0, zoom: "unchanged" });
    remember();
  });

  keys(stage, (key, { shiftKey }) => {
    const { yaw, pitch, zoom } = camera();
    const step = shiftKey ? 1 : SNAP;
    const closer = NEARNESS.indexOf(zoom) + Number(key === "+" || key === "=") - Number(key === "-");
    if (key in ARROWS) {
      const [across, up] = ARROWS[key];
      turn({ yaw: wrapped(yaw + across * step), pitch: clamp(pitch + up * step, -90, 90) });
    } else if ("+=-".includes(key)) turn({ zoom: NEARNESS[clamp(closer, 0, 2)] });
    else return false;
    return true;
  });

  const look = follow(host, () => ({ ...camera(), source: subject(node), taken: decided(node, INPUTS) }), ({ source, taken, ...now }) => {
    shade(element, taken);
    if (seen.getAttribute("src") !== (source ?? null)) {
      set(seen, { src: source });
      picture.show(source);
    }
    draw(now);
  });
  return mount(host, "view", element, HEIGHT);
}

/** @param {Record<string, number>} table @returns {[string, number][]} */
const labelled = (table) => Object.entries(table).map(([name, number]) => [t(name), number]);

/** @param {SVGElement} mark @param {{x: number, y: number}} point */
export const move = (mark, { x, y }) => set(mark, { cx: x.toFixed(2), cy: y.toFixed(2) });

/** The zoom whose mark on the ray is nearest to a point. @param {Camera} camera @param {{x: number, y: number}} point */
function nearest({ yaw, pitch }, point) {
  /** @param {keyof typeof ZOOMS} zoom */
  const away = (zoom) => {
    const { x, y } = project(at(yaw, pitch, ZOOMS[zoom]));
    return Math.hypot(x - point.x, y - point.y);
  };
  return NEARNESS.reduce((best, zoom) => (away(zoom) < away(best) ? zoom : best));
}
