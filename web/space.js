/**
 * The little scene of the camera widgets: a picture standing upright, a ring around it, and cameras on a sphere.
 *
 * The model's sources do not say which way positive angles turn. Assumed here, as is usual: positive yaw takes the
 * camera around the scene to the right, as seen in the picture, and positive pitch takes it up.
 */
import { set, svg, within } from "./shared.js";

/** @typedef {{x: number, y: number, z: number}} Place right, up, and towards the viewer of the picture */
/** @typedef {{x: number, y: number}} Point in the drawing, down is positive */

export const SNAP = 15; // degrees
export const ZOOMS = { in: 1.1, unchanged: 1.25, out: 1.4 }; // the camera's distance, in radii of the ring
export const WIDE = "-156 -148 312 296"; // with room for the camera, and
export const CLOSE = "-128 -110 256 220"; // for what stays on the ring
const RADIUS = 106; // of the ring, in the drawing's units
const TURNED = -24; // degrees by which we look at the scene from the side,
const RAISED = 24; // and from above
const CARD = 0.7; // half of the picture's longer side, in radii
const CONE = { length: 0.3, width: 0.21, height: 0.15 }; // what the camera sees, in radii

/** @param {number} degrees */
const radians = (degrees) => (degrees * Math.PI) / 180;
const [cosT, sinT] = [Math.cos(radians(TURNED)), Math.sin(radians(TURNED))];
const [cosR, sinR] = [Math.cos(radians(RAISED)), Math.sin(radians(RAISED))];

/** Degrees in (-180, 180], as the sentence has them. @param {number} degrees */
export const wrapped = (degrees) => 180 - ((((180 - degrees) % 360) + 360) % 360);

/** @param {number} degrees @param {boolean} free */
export const snapped = (degrees, free) => (free ? Math.round(degrees) : Math.round(degrees / SNAP) * SNAP);

/** Four decimals at most, none for whole degrees. @param {number} degrees */
const written = (degrees) => String(Number(degrees.toFixed(4)) + 0);

/** The sentence that the node will send, as the library writes it.
 * @param {number} yaw @param {number} pitch @param {string} zoom */
export function sentence(yaw, pitch, zoom) {
  return [
    "Move the camera.",
    `- Camera rotation: Yaw ${written(wrapped(yaw))}°, Pitch ${written(pitch)}°.`,
    `- Camera zoom: ${zoom}.`,
    "- Keep the 3D scene static; only change the viewpoint.",
  ].join("\n");
}

/** @param {number} yaw @param {number} [pitch] @param {number} [distance] in radii @returns {Place} */
export function at(yaw, pitch = 0, distance = 1) {
  const [y, p] = [radians(yaw), radians(pitch)];
  return {
    x: distance * Math.sin(y) * Math.cos(p),
    y: distance * Math.sin(p),
    z: distance * Math.cos(y) * Math.cos(p),
  };
}

/** @param {Place} place @returns {Point} */
export function project({ x, y, z }) {
  const across = x * cosT + z * sinT;
  const towards = -x * sinT + z * cosT;
  return { x: RADIUS * across, y: RADIUS * (towards * sinR - y * cosR) };
}

/** How far towards us a place is. @param {Place} place */
export const depth = ({ x, y, z }) => y * sinR + (-x * sinT + z * cosT) * cosR;

/** The yaw of a point of the drawing, taken as one of the ring's plane. @param {Point} point */
export function yawOf({ x, y }) {
  const [across, towards] = [x, y / sinR];
  return (Math.atan2(across * cosT - towards * sinT, across * sinT + towards * cosT) * 180) / Math.PI;
}

/** @param {Point[]} points */
const path = (points) => points.map(({ x, y }, i) => `${i ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`).join("");

/** Places at equal steps from one angle to another.
 * @param {(angle: number) => Place} place @param {number} from @param {number} to */
function along(place, from, to) {
  const steps = Math.max(2, Math.ceil(Math.abs(to - from) / 4));
  return Array.from({ length: steps + 1 }, (_, i) => place(from + ((to - from) * i) / steps));
}

/** The line through such places. @type {(...range: Parameters<typeof along>) => string} */
export const arc = (...range) => path(along(...range).map(project));

/** As `arc`, but only what passes in front of the picture. @type {typeof arc} */
export function nearArc(...range) {
  const places = along(...range);
  const pairs = places.slice(1).map((end, i) => [places[i], end]);
  return pairs.filter((pair) => pair.every(({ z }) => z >= 0)).map((pair) => path(pair.map(project))).join("");
}

/** A camera that looks at the middle, as a wire-frame cone. @param {number} yaw @param {number} pitch @param {number} distance */
export function cone(yaw, pitch, distance) {
  const [y, p] = [radians(yaw), radians(pitch)];
  const right = { x: Math.cos(y), y: 0, z: -Math.sin(y) };
  const up = { x: -Math.sin(y) * Math.sin(p), y: Math.cos(p), z: -Math.cos(y) * Math.sin(p) };
  const [apex, base] = [at(yaw, pitch, distance), at(yaw, pitch, distance - CONE.length)];
  const corners = [-1, 1, 1, -1].map((side, i) => {
    const [w, h] = [side * CONE.width, (i < 2 ? 1 : -1) * CONE.height];
    return project({
      x: base.x + w * right.x + h * up.x,
      y: base.y + w * right.y + h * up.y,
      z: base.z + w * right.z + h * up.z,
    });
  });
  const tip = project(apex);
  return `${path(corners)}Z${corners.map((corner) => path([tip, corner])).join("")}`;
}

/** The picture on its card, standing upright in the middle. Its own proportions come with the first picture. */
export function card() {
  const image = svg("image", { width: 1, height: 1, preserveAspectRatio: "none" });
  const edge = svg("rect", { width: 1, height: 1, class: "joyimage-card", "vector-effect": "non-scaling-stroke" });
  const group = svg("g", {}, edge, image);
  /** @param {number} ratio width / height */
  const shape = (ratio) => {
    const [w, h] = [CARD * Math.min(1, ratio), CARD * Math.min(1, 1 / ratio)];
    const [corner, right, below] = [
      { x: -w, y: h, z: 0 },
      { x: w, y: h, z: 0 },
      { x: -w, y: -h, z: 0 },
    ].map(project);
    const matrix = [right.x - corner.x, right.y - corner.y, below.x - corner.x, below.y - corner.y, corner.x, corner.y];
    set(group, { transform: `matrix(${matrix.join(" ")})` });
  };
  shape(1);
  /** @param {string | undefined} picture */
  const show = (picture) => {
    if (!picture) {
      image.removeAttribute("href");
      return;
    }
    const probe = new Image();
    probe.addEventListener("load", () => {
      shape(probe.naturalWidth / probe.naturalHeight);
      set(image, { href: picture });
    });
    probe.src = picture;
  };
  return { element: group, show };
}

/** Where a pointer is in the drawing, at any zoom of the graph. @param {MouseEvent} event @param {Element} frame that fills it */
export function pointIn(event, frame) {
  const share = within(event, frame);
  const [x, y, w, h] = ["x", "y", "width", "height"].map((name) => Number(frame.getAttribute(name)));
  return { x: x + w * share.x, y: y + h * share.y };
}

/** The empty scene, the rectangle of it that `pointIn` takes, and the part of its ring that goes in front of the picture.
 * @param {string} viewBox */
export function scene(viewBox) {
  const [x, y, width, height] = viewBox.split(" ").map(Number);
  const frame = svg("rect", { x, y, width, height, class: "joyimage-frame" });
  const [ring, near] = [arc, nearArc].map((line) => svg("path", { class: "joyimage-ring", d: line((yaw) => at(yaw), -180, 180) }));
  const ticks = [0, 45, 90, 135, 180, -135, -90, -45].map((yaw) => {
    const { x: cx, y: cy } = project(at(yaw, 0));
    return svg("circle", { cx, cy, r: yaw % 90 ? 1.6 : 2.6, class: "joyimage-tick" });
  });
  const drawing = svg("svg", { viewBox, "aria-hidden": "true" }, frame, ring, ...ticks);
  return { drawing, frame, near };
}
