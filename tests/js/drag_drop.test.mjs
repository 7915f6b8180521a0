import assert from "node:assert/strict";
import { test } from "node:test";

import { uploadAll } from "../../js/lib/drag_drop.js";

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
  const files = ["IMG_1.txt", "IMG_1-masklabel.png", "IMG_1.jpg", "IMG_2.txt", "IMG_2.jpg"];
  assert.deepEqual(await uploaded(files, { "IMG_1.jpg": "IMG_1 (1).jpg" }), [
    ["IMG_1 (1).jpg", false],
    ["IMG_2.jpg", false],
    ["IMG_1 (1).txt", true],
    ["IMG_1 (1)-masklabel.png", true],
    ["IMG_2.txt", true],
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
