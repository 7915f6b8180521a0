import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { crc32, ZipWriter } from "../../js/lib/zip.js";

const READ = `
import json, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    assert archive.testzip() is None
    print(json.dumps({item.filename: archive.read(item).hex() for item in archive.infolist()}))
`;

test("the check value of CRC-32", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
});

test(
  "another program reads the archive",
  { skip: !process.env.PYTHON && "PYTHON is not set" },
  async () => {
    const files = {
      "base_beach.png": [1, 2, 3],
      "Zoë 日本.png": [],
      "r4.png": [...new Array(70000).keys()].map((n) => n % 251),
    };
    const zip = new ZipWriter();
    for (const [name, content] of Object.entries(files)) zip.add(name, Uint8Array.from(content));
    const folder = mkdtempSync(join(tmpdir(), "likeness-"));
    try {
      const path = join(folder, "x.zip");
      writeFileSync(path, Buffer.from(await zip.finish().arrayBuffer()));
      const read = JSON.parse(
        execFileSync(process.env.PYTHON, ["-c", READ, path], { encoding: "utf8" }),
      );
      const wanted = Object.fromEntries(
        Object.entries(files).map(([name, content]) => [
          name,
          Buffer.from(content).toString("hex"),
        ]),
      );
      assert.deepEqual(read, wanted);
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
);

test("an archive is refused where the format ends", () => {
  const zip = new ZipWriter();
  const huge = { length: 2 ** 32, [Symbol.iterator]: function* () {} };
  assert.throws(() => zip.add("x", huge), RangeError);
});
