/** Registers the pack's widgets with ComfyUI's frontend. */
import { app } from "../../scripts/app.js";
import { answerView, listen, remember } from "./answer.js";
import { boxWidget } from "./box.js";
import { boxesWidget } from "./boxes.js";
import { cameraView } from "./camera.js";
import { colour } from "./colours.js";
import { compareView } from "./compare.js";
import { dialView } from "./dial.js";
import { loadView, sceneView } from "./example.js";
import { nameChoices, nameSockets } from "./names.js";
import { orbitView } from "./orbit.js";
import { outside } from "./outside.js";
import { knowScenes } from "./pictures.js";
import { begin, settings } from "./settings.js";

/** @typedef {import("./types").GraphNode} GraphNode */

/** @type {Record<string, (node: GraphNode) => unknown>} */
const VIEWS = {
  JoyImageAsk: answerView,
  JoyImageBestOf: answerView,
  JoyImageCamera: cameraView,
  JoyImageCompare: compareView,
  JoyImageEdit: answerView,
  JoyImageEncodePrompt: answerView,
  JoyImageExampleScene: sceneView,
  JoyImageLoadImage: loadView,
  JoyImageLoadLora: answerView,
  JoyImageLocate: answerView,
  JoyImageOrbit: orbitView,
  JoyImageReason: answerView,
  JoyImageRewritePrompt: answerView,
  JoyImageRotateObject: dialView,
  JoyImageSpeed: answerView,
  JoyImageTrainLora: answerView,
  JoyImageTrainingSet: answerView,
};
/** @type {Record<string, (node: GraphNode, host: GraphNode) => unknown>} those that a node around theirs may have too */
const OUTSIDE = {
  JoyImageAsk: answerView,
  JoyImageCamera: cameraView,
  JoyImageMoveObject: (node, host) => boxWidget(node, "box", host),
  JoyImageRotateObject: dialView,
};
const WIDTH = 340; // pixels of the graph, for a new node

app.registerExtension({
  name: "JoyImage.Widgets",
  settings,
  setup() {
    const link = document.createElement("link");
    Object.assign(link, { rel: "stylesheet", href: new URL("./joyimage.css", import.meta.url).href });
    document.head.append(link);
    listen();
    knowScenes().catch((error) => window.console.warn("JoyImage: the example scenes are not to be had", error));
    remember().catch((error) => window.console.warn("JoyImage: the history is not to be had", error));
  },
  getCustomWidgets: () => ({
    JOYIMAGE_BOX: (/** @type {GraphNode} */ node, /** @type {string} */ name) => ({ widget: boxWidget(node, name) }),
    JOYIMAGE_BOXES: (/** @type {GraphNode} */ node, /** @type {string} */ name) => ({ widget: boxesWidget(node, name) }),
  }),
  nodeCreated(/** @type {GraphNode & {comfyClass: string}} */ node) {
    if (node.comfyClass?.startsWith("JoyImage")) {
      nameChoices(node);
      nameSockets(node);
      colour(node, node.comfyClass);
      begin(node, node.comfyClass);
    }
    const view = VIEWS[node.comfyClass];
    if (view) view(node);
    else if (!outside(node, OUTSIDE)) return;
    node.setSize([Math.max(WIDTH, node.size[0]), node.computeSize()[1]]);
  },
});
