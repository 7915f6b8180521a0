import assert from "node:assert/strict";
import { test } from "node:test";

import { isConnected, resolveInput, sourceOf } from "../../js/lib/links.js";
import {
  areTooSmall,
  checkToken,
  cropRect,
  describeOthers,
  describeSizes,
  groupRefused,
  hasToken,
  isPhotoOrCaption,
  isUncropped,
  markCaptions,
  parsePhotos,
  pollPhotos,
  summary,
  warningsOf,
} from "../../js/lib/photos.js";
import {
  columnsByPose,
  drawingOf,
  formatSelection,
  parseSelection,
  toggled,
} from "../../js/lib/poses.js";

const PHOTO = {
  name: "a.jpg",
  width: 800,
  height: 600,
  box: [100, 0, 700, 600],
  size: [512, 512],
  blurred: false,
  twin: null,
};

test("the crop's place on the photograph", () => {
  assert.deepEqual(cropRect(PHOTO), {
    left: "12.500%",
    top: "0.000%",
    width: "75.000%",
    height: "100.000%",
  });
  assert.equal(isUncropped(PHOTO), false);
  assert.equal(isUncropped({ ...PHOTO, box: [0, 0, 800, 600] }), true);
});

test("marks and summary", () => {
  const marked = { ...PHOTO, blurred: true, twin: "<i>b.jpg</i>" };
  assert.deepEqual(warningsOf(marked), ["looks blurry", "near-duplicate of <i>b.jpg</i>"]);
  assert.equal(
    summary({ photos: [PHOTO, marked], refused: [{}] }),
    "2 photographs, 1 skipped, 1 to check",
  );
  assert.equal(summary({ photos: [PHOTO], refused: [] }), "1 photograph");
  assert.equal(
    describeSizes({ ...PHOTO, face: true }),
    "800 × 600, cropped to 600 × 600 around the face, trained at 512 × 512",
  );
});

test("photographs that are refused for the same reason are one line", () => {
  const small = "it is too small: 256x256";
  const refused = ["1.png", "2.png", "3.png"].map((name) => ({ name, reason: small }));
  const other = { name: "4.png", reason: "it is not an image" };
  assert.deepEqual(groupRefused([refused[0], other, refused[1], refused[2]]), [
    { title: "3 photographs", files: ["1.png", "2.png", "3.png"], reason: small },
    { title: "4.png", files: ["4.png"], reason: "it is not an image" },
  ]);
  assert.equal(areTooSmall(refused), true);
  assert.equal(areTooSmall([...refused, other]), false);
  assert.equal(areTooSmall([]), false);
});

test("captions that do not name the subject are marked", () => {
  const captions = [null, "a photo of SKS man", "{token} in the snow", "a man in the snow"];
  const photos = captions.map((caption) => ({ ...PHOTO, caption }));
  markCaptions(photos, " sks ");
  assert.deepEqual(
    photos.map((photo) => warningsOf(photo)),
    [[], [], [], ["its caption lacks the token sks"]],
  );
  assert.equal(hasToken("a photo of {token} {class}", "sks"), true);
  assert.equal(hasToken("a photo of a man", "sks"), false);
});

test("another token is looked for in the photographs that were read", () => {
  const photos = [{ ...PHOTO, caption: "a sks man" }, PHOTO];
  assert.deepEqual(checkToken(photos, "ohwx ", "a {token} man"), []);
  assert.equal(photos[0].missing, "ohwx");
  const [note] = checkToken(photos, "sks", "a man");
  assert.match(note, /lacks the token sks/);
  assert.equal(photos[0].missing, null);
  assert.deepEqual(checkToken(photos, undefined, undefined), []);
  assert.deepEqual(checkToken([photos[0]], "sks", "a man"), [], "no photograph has the prompt");
});

test("a prompt with a place for the caption may name the subject itself", () => {
  const photos = [{ ...PHOTO, caption: "in the kitchen" }];
  assert.deepEqual(checkToken(photos, "sks", "a photo of {token} man, {caption}"), []);
  assert.equal(photos[0].missing, null);
  checkToken(photos, "sks", "a photo of a man, {caption}");
  assert.equal(photos[0].missing, "sks");
});

test("photographs are asked for until they are read, or nobody waits", async () => {
  const views = [{ reading: true }, { reading: true }, { photos: [] }, { reading: true }];
  const fetchPhotos = async () => views.shift();
  assert.deepEqual(await pollPhotos(fetchPhotos, () => true, 0), { photos: [] });
  assert.equal(await pollPhotos(fetchPhotos, () => false, 0), null);
  assert.equal(views.length, 0);
});

test("photographs are told from other files by their type or their name", () => {
  const files = [
    { name: "a.bin", type: "image/png" },
    { name: "IMG_1.HEIC", type: "" },
    { name: "a.txt", type: "text/plain" },
    { name: "a.caption", type: "" },
    { name: "a.pdf", type: "application/pdf" },
  ];
  assert.deepEqual(files.map(isPhotoOrCaption), [true, true, true, true, false]);
});

test("other files of a dropped folder were listed one by one", () => {
  assert.equal(
    describeOthers(["a.npz", "b.NPZ", "meta.json", ".DS_Store", "Thumbs.db"]),
    "5 other files are not copied: .npz, .json, .DS_Store, .db.",
  );
  assert.equal(describeOthers(["a.npz"]), "1 other file is not copied: .npz.");
});

test("a damaged answer shows what is whole", () => {
  const damaged = [
    null,
    {},
    { ...PHOTO, box: [0, 0, 900, 600] },
    { ...PHOTO, size: null },
    { ...PHOTO, box: [9, 0, 5, 5] },
  ];
  const view = parsePhotos({
    photos: [PHOTO, ...damaged],
    refused: [{ name: "x" }, { name: "y", reason: "z" }],
    notes: ["n", 5],
    left_out: ["l.jpg", null],
  });
  assert.deepEqual(
    [view.photos.length, view.refused.length, view.notes.length, view.leftOut, view.error],
    [1, 1, 1, ["l.jpg"], ""],
  );
  assert.deepEqual(parsePhotos(null), {
    error: "",
    photos: [],
    refused: [],
    notes: [],
    leftOut: [],
    reading: false,
  });
  assert.equal(parsePhotos({ error: "no folder" }).error, "no folder");
});

const NAMES = ["tree", "goddess", "lotus"];

test("poses by the text of the widget, and back", () => {
  assert.deepEqual([...parseSelection("all", NAMES, "all")], NAMES);
  assert.deepEqual([...parseSelection("lotus, tree, crow", NAMES, "all")], ["tree", "lotus"]);
  assert.deepEqual([...parseSelection("", NAMES, "all")], []);
  assert.equal(formatSelection(new Set(["lotus", "tree"]), NAMES, "all"), "tree, lotus");
  assert.equal(formatSelection(new Set(NAMES), NAMES, "all"), "all");
});

test("one pose always stays chosen", () => {
  assert.deepEqual([...toggled(new Set(["tree"]), "lotus")], ["tree", "lotus"]);
  assert.deepEqual([...toggled(new Set(["tree", "lotus"]), "tree")], ["lotus"]);
  assert.deepEqual([...toggled(new Set(["tree"]), "tree")], ["tree"]);
});

test("a limb without one of its joints is not drawn", () => {
  const person = [[0.5, 0.1], [0.5, 0.3], null];
  const drawing = drawingOf(
    { aspect: 0.75, people: [person] },
    [
      [0, 1],
      [1, 2],
    ],
    [
      [255, 0, 0],
      [0, 255, 0],
      [0, 0, 255],
    ],
  );
  assert.equal(drawing.width, 75);
  assert.deepEqual(drawing.limbs, [{ from: [37.5, 10], to: [37.5, 30], colour: "rgb(255 0 0)" }]);
  assert.equal(drawing.joints.length, 2);
});

test("the columns that got a pose", () => {
  assert.deepEqual(columnsByPose({ beach: "tree", rain: "lotus", chess: "tree" }), {
    tree: ["beach", "chess"],
    lotus: ["rain"],
  });
  assert.deepEqual(columnsByPose(null), {});
});

/** A graph of nodes by id, with links [origin id, origin slot] by link id. */
const graphOf = (nodes, links, more = {}) => {
  const graph = {
    getNodeById: (id) => nodes[id] ?? null,
    getLink: (id) => links[id] && { origin_id: links[id][0], origin_slot: links[id][1] },
    ...more,
  };
  for (const node of Object.values(nodes)) node.graph = graph;
  return graph;
};
const inputs = (link) => [
  { name: "first", link: null },
  { name: "poses", link },
];
const reroute = (link) => ({ isVirtualNode: true, inputs: [{ name: "", link }] });

test("a wire's source is found behind reroutes, also where they go round in a circle", () => {
  const poses = { comfyClass: "Likeness_PoseSet" };
  const node = { inputs: inputs(1) };
  const nodes = { 5: node, 6: reroute(2), 7: reroute(3), 8: poses, 9: reroute(null) };
  graphOf(nodes, { 1: [6, 0], 2: [7, 0], 3: [8, 0], 4: [9, 0], 5: [10, 0] });
  assert.equal(sourceOf([node], "poses"), poses);
  assert.equal(sourceOf([node], "first"), undefined);
  assert.equal(sourceOf([node], "gone"), undefined);
  node.inputs = inputs(4);
  assert.equal(sourceOf([node], "poses"), undefined);
  node.inputs = inputs(5);
  assert.equal(sourceOf([node], "poses"), undefined, "a wire from nowhere");
  nodes[7].inputs = [{ name: "", link: 1 }];
  node.inputs = inputs(1);
  assert.equal(sourceOf([node], "poses"), undefined, "a circle");
});

test("a wire's source is found through a subgraph's borders, inwards and outwards", () => {
  const poses = { comfyClass: "Likeness_PoseSet" };
  const others = { comfyClass: "Likeness_PoseSet" };
  const matrix = { inputs: inputs(1) };
  const inner = graphOf({ 5: matrix }, { 1: [-10, 1] }, { inputs: [{}, { name: "poses" }] });
  const subgraphNode = { subgraph: inner, inputs: inputs(2) };
  const twin = { subgraph: inner, inputs: inputs(3) };
  graphOf({ 12: subgraphNode, 13: twin, 8: poses, 9: others }, { 2: [8, 0], 3: [9, 0] });
  assert.equal(sourceOf([subgraphNode, matrix], "poses"), poses);
  assert.equal(sourceOf([twin, matrix], "poses"), others, "each use has its own");
  assert.equal(sourceOf([matrix], "poses"), undefined);

  const outside = { inputs: inputs(1) };
  const within = graphOf({ 8: poses }, { 7: [8, 0] }, { outputs: [{}, { linkIds: [7] }] });
  const box = { subgraph: within, isVirtualNode: true, inputs: [] };
  graphOf({ 12: box, 14: outside }, { 1: [12, 1] });
  assert.equal(sourceOf([outside], "poses"), poses);
});

const folderInput = (link) => ({ name: "folder", widget: { name: "folder" }, link });
const subgraphNodeOf = (subgraph, link, value) => ({
  subgraph,
  inputs: [folderInput(link)],
  widgets: [{ name: "folder", value }],
});

test("a widget that is shown on its subgraph's node has the value of that node", () => {
  const subject = { inputs: [folderInput(1)], widgets: [{ name: "folder", value: "inner" }] };
  const inner = graphOf({ 5: subject }, { 1: [-10, 0] }, { inputs: [{ name: "folder" }] });
  const root = { nodes: [subgraphNodeOf(inner, null, "anna")] };
  inner.rootGraph = root;
  assert.deepEqual(resolveInput(subject, "folder"), { value: "anna", connected: false });
  root.nodes.push(subgraphNodeOf(inner, null, "ben"));
  assert.equal(isConnected(subject, "folder"), true, "which of the two");
  const outer = { inputs: [folderInput(7)], widgets: [] };
  root.nodes = [subgraphNodeOf(inner, 7, "anna")];
  Object.assign(root.nodes[0], {
    graph: { getLink: () => ({ origin_id: 3, origin_slot: 0 }), getNodeById: () => outer },
  });
  assert.equal(isConnected(subject, "folder"), true, "another node gives it");
  subject.inputs = [folderInput(null)];
  assert.deepEqual(resolveInput(subject, "folder"), { value: "inner", connected: false });
});
