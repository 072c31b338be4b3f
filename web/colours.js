/** Titles in a colour by what nodes are for, so that they are told apart from afar. */

/** @typedef {import("./types").GraphNode} GraphNode */
/** @typedef {{color?: string, bgcolor?: string}} Colours */
/** @typedef {GraphNode & Colours & {onConfigure?: (saved: Colours, ...more: unknown[]) => void}} Node */

const LOADING = "#36333f";
const SPATIAL = "#2d3a3f";
const UNDERSTANDING = "#3d382c";
const TRAINING = "#3c2f38";
const MAKING = "#303a31"; // all others

/** @type {Record<string, string>} */
const TITLES = {
  JoyImageExampleScene: LOADING,
  JoyImageLoadEncoder: LOADING,
  JoyImageLoadImage: LOADING,
  JoyImageLoadLora: LOADING,
  JoyImageLoadMMDiT: LOADING,
  JoyImageLoadVAE: LOADING,
  JoyImageCamera: SPATIAL,
  JoyImageDrawBoxes: SPATIAL,
  JoyImageMoveObject: SPATIAL,
  JoyImageOrbit: SPATIAL,
  JoyImageRotateObject: SPATIAL,
  JoyImageAsk: UNDERSTANDING,
  JoyImageLocate: UNDERSTANDING,
  JoyImageReason: UNDERSTANDING,
  JoyImageRewritePrompt: UNDERSTANDING,
  JoyImageTrainLora: TRAINING,
  JoyImageTrainingSet: TRAINING,
};

/** Give a new node its colour; one that is read from a file or a copy has that which it had, or none.
 * @param {Node} node @param {string} kind */
export function colour(node, kind) {
  if (node.color || node.bgcolor) return;
  node.color = TITLES[kind] ?? MAKING;
  const { onConfigure } = node;
  node.onConfigure = function (saved, ...more) {
    if (!saved.color) this.color = undefined;
    onConfigure?.call(this, saved, ...more);
  };
}
