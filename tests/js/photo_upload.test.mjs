import assert from "node:assert/strict";
import { test } from "node:test";

import { droppedFiles, folderName, uploadAll } from "../../js/lib/photo_upload.js";

/** Uploads files, renamed as `renames` says; returns the uploads as [name, overwrite]. */
async function uploaded(names, renames) {
  const all = [];
  await uploadAll(
    names.map((name) => ({ name })),
    async (file, name, overwrite) => {
      const got = renames[name] ?? name;
      all.push([got, overwrite]);
      return got;
    },
  );
  return all;
}

test("a caption that is dropped with its photograph does not replace another one's", async () => {
  const files = ["IMG_1.txt", "IMG_1-masklabel.png", "IMG_1.jpg", "IMG_2.caption", "IMG_2.jpg"];
  assert.deepEqual(await uploaded(files, { "IMG_1.jpg": "IMG_1 (1).jpg" }), [
    ["IMG_1 (1).jpg", false],
    ["IMG_2.jpg", false],
    ["IMG_1 (1).txt", true],
    ["IMG_1 (1)-masklabel.png", true],
    ["IMG_2.caption", true],
  ]);
});

test("a caption that is dropped alone replaces the one that is there", async () => {
  assert.deepEqual(await uploaded(["a.b.TXT"], {}), [["a.b.TXT", true]]);
});

test("a caption of two photographs goes to both", async () => {
  const files = ["a.txt", "a.jpg", "a.png"];
  assert.deepEqual((await uploaded(files, { "a.png": "a (1).png" })).slice(2), [
    ["a.txt", true],
    ["a (1).txt", true],
  ]);
});

test("what cannot be sent ends it", async () => {
  const upload = async () => {
    throw new Error("away");
  };
  await assert.rejects(uploadAll([{ name: "a.jpg" }], upload), /away/);
});

const fileEntry = (name) => ({ isFile: true, name, file: (done) => done({ name }) });
const folderEntry = (name, children) => ({
  isDirectory: true,
  name,
  createReader: () => {
    const parts = [children.slice(0, 2), children.slice(2), []];
    return { readEntries: (done) => done(parts.shift()) };
  },
});
const drop = (entries, files = []) => ({
  items: entries.map((entry) => ({ webkitGetAsEntry: () => entry })),
  files,
});

test("a folder that is dropped gives its name and its own files", async () => {
  const children = [fileEntry("a.jpg"), folderEntry("more", []), fileEntry("b.jpg")];
  assert.deepEqual(await droppedFiles(drop([folderEntry("anna", children)])), {
    files: [{ name: "a.jpg" }, { name: "b.jpg" }],
    folder: "anna",
  });
});

test("files that are dropped name no folder", async () => {
  const files = [{ name: "a.jpg" }];
  assert.deepEqual(await droppedFiles(drop([fileEntry("a.jpg")], files)), { files, folder: "" });
  assert.deepEqual(await droppedFiles({ files }), { files, folder: "" });
  const withoutEntries = { items: [{ webkitGetAsEntry: () => null }], files };
  assert.deepEqual(await droppedFiles(withoutEntries), { files, folder: "" });
});

test("two folders are not mixed into one", async () => {
  const folders = drop([folderEntry("anna", []), folderEntry("berta", [])]);
  await assert.rejects(droppedFiles(folders), /one folder/);
});

test("a folder's name becomes one that every system takes", () => {
  assert.equal(folderName(" ../anna: <2024>?. "), "anna 2024");
  assert.equal(folderName("Zoë and Bob"), "Zoë and Bob");
  assert.equal(folderName("..."), "");
});
