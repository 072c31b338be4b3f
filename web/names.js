/** Names that the frontend does not translate by itself: those of choices, and of sockets that grow. */
import { app } from "../../scripts/app.js";
import { t } from "./text.js";

/** @typedef {import("./types").GraphNode} GraphNode */
/** @typedef {{name: string, label?: string}} Socket */
/** @typedef {GraphNode & {onConfigure?: Function, onConnectionsChange?: Function}} Node */

/** @type {Record<string, Record<string, string>>} beyond those of the widgets, which are in text.js; a word that says
 * something else in one input has that input's name before it */
const WORDS = {
  zh: {
    ...{ auto: "自动", exact: "原尺寸", original: "原版", default: "默认", fast: "快速", "preset exact": "精确" },
    ...{ edit: "编辑", guidance: "引导", target: "目标", mask: "遮罩", difference: "差异", all: "全部" },
  },
  ja: {
    ...{ auto: "自動", exact: "元のサイズ", original: "オリジナル", default: "既定", fast: "高速", "preset exact": "厳密" },
    ...{ edit: "編集", guidance: "ガイダンス", target: "目標", mask: "マスク", difference: "差", all: "すべて" },
  },
  ko: {
    ...{ auto: "자동", exact: "원본 크기", original: "원본", default: "기본값", fast: "빠름", "preset exact": "정확" },
    ...{ edit: "편집", guidance: "가이던스", target: "목표", mask: "마스크", difference: "차이", all: "모두" },
  },
};
const CHOICES = ["base_size", "loss", "objective", "preset", "scene", "schedule", "view", "weight_dtype", "zoom"]; // inputs whose values are words

/** Show the values of a node's choices in the user's language; what is saved and queued stays English.
 * @param {GraphNode} node */
export function nameChoices(node) {
  const words = WORDS[String(app.extensionManager.setting.get("Comfy.Locale") ?? "en").slice(0, 2)];
  if (!words) return;
  for (const { name, options } of node.widgets ?? [])
    if (CHOICES.includes(name))
      options.getOptionLabel = (/** @type {string | null} */ value) =>
        words[`${name} ${value}`] ?? words[value ?? ""] ?? t(value ?? "") ?? value ?? "";
}

/**
 * Let the sockets that grow have the names of locales/, which count from 1: some versions of the frontend, and the files
 * that they saved, label them by their ids.
 * @param {Node} node
 */
export function nameSockets(node) {
  const unlabel = () => {
    for (const socket of /** @type {Socket[]} */ (node.inputs))
      if (socket.label && socket.name === `images.${socket.label}`) socket.label = undefined;
  };
  const { onConfigure, onConnectionsChange } = node;
  node.onConfigure = function (/** @type {unknown[]} */ ...saved) {
    onConfigure?.apply(this, saved);
    unlabel();
  };
  node.onConnectionsChange = function (/** @type {unknown[]} */ ...change) {
    onConnectionsChange?.apply(this, change);
    unlabel(); // the socket that the change has added
  };
  unlabel();
}
