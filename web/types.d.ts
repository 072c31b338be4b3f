/** The part of ComfyUI's frontend that the widgets use, for checking them. */

export interface Widget {
  name: string;
  value: any;
  serialize?: boolean;
  options: Record<string, any>;
  computeLayoutSize(node: GraphNode): { minHeight: number; maxHeight?: number; minWidth: number };
  callback?: (value: unknown, canvas?: unknown, node?: GraphNode) => void;
}

export interface Link {
  origin_id: number | string;
  origin_slot: number;
  target_id: number | string;
  target_slot: number;
}

export interface Slot {
  name: string;
  localized_name?: string;
  type: string;
  linkIds?: number[];
}

export interface Graph {
  id: string;
  nodes: GraphNode[];
  outputs: Slot[];
  links: Map<number, Link>;
  getNodeById(id: number | string): GraphNode | null;
  getLink(id: number | null | undefined): Link | undefined;
}

export interface SavedImage {
  filename: string;
  subfolder: string;
  type: string;
}

export interface GraphNode {
  id: number | string;
  type: string;
  graph: Graph;
  subgraph?: Graph;
  inputs: Slot[];
  outputs: Slot[];
  widgets?: Widget[];
  imgs?: HTMLImageElement[];
  properties: Record<string, unknown>;
  size: [number, number];
  setSize(size: [number, number]): void;
  computeSize(): [number, number];
  getOutputNodes(slot: number): GraphNode[] | null;
  removeWidget(widget: Widget): void;
  addDOMWidget(name: string, type: string, element: HTMLElement, options: object): Widget;
  onAdded?: (graph: Graph) => void;
  onRemoved?: () => void;
  onExecuted?: (output: Record<string, SavedImage[]>) => void;
  onDragOver?: (event: DragEvent) => boolean;
  onDragDrop?: (event: DragEvent) => boolean;
  pasteFiles?: (files: File[]) => boolean;
}

/** Why the server refused a node when the graph was last queued. */
export interface NodeErrors {
  errors: { message: string; details?: string; extra_info?: { input_name?: string } }[];
}

export interface App {
  rootGraph: Graph;
  lastNodeErrors?: Record<string, NodeErrors | undefined> | null; // by execution id
  canvas: {
    graph: Graph | null;
    setDirty(front: boolean, back: boolean): void;
    processMouseWheel(event: WheelEvent): void;
    processMouseDown(event: PointerEvent): void;
    processMouseMove(event: PointerEvent): void;
    processMouseUp(event: PointerEvent): void;
  };
  nodeOutputs: Record<string, Record<string, any> | undefined>;
  extensionManager: {
    setting: { get(name: string): any };
    workflow: { activeWorkflow?: { changeTracker?: { captureCanvasState(): void } } };
  };
  registerExtension(extension: object): void;
}
