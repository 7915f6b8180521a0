// Writes ZIP archives without compression, as PNG and JPEG are already compressed.
// Follows PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

/** Limits of an archive without the ZIP64 extension. */
export const MAX_BYTES = 0xffffffff;
export const MAX_FILES = 0xffff;

/** CRC-32 checksum of bytes. */
export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** Collects files one by one, as blobs, which the browser need not keep in memory. */
export class ZipWriter {
  #parts = [];
  #entries = [];
  #size = 0;

  /** Adds a file of `bytes`, a Uint8Array. Throws RangeError beyond the format's limits. */
  add(name, bytes) {
    const encoded = new TextEncoder().encode(name);
    const fields = { crc: crc32(bytes), size: bytes.length, offset: this.#size, name: encoded };
    if (this.#size + bytes.length > MAX_BYTES || this.#entries.length >= MAX_FILES) {
      throw new RangeError("The images together are over 4 GB.");
    }
    const head = record(0x04034b50, fields);
    this.#parts.push(new Blob([head, encoded, bytes]));
    this.#size += head.length + encoded.length + bytes.length;
    this.#entries.push(fields);
  }

  /** The archive as a Blob. */
  finish() {
    const directory = this.#entries.flatMap((entry) => [record(0x02014b50, entry), entry.name]);
    const length = directory.reduce((sum, part) => sum + part.length, 0);
    const end = new DataView(new ArrayBuffer(22));
    end.setUint32(0, 0x06054b50, true);
    end.setUint16(8, this.#entries.length, true);
    end.setUint16(10, this.#entries.length, true);
    end.setUint32(12, length, true);
    end.setUint32(16, this.#size, true);
    return new Blob([...this.#parts, ...directory, end.buffer], { type: "application/zip" });
  }
}

/** A local file header, or a central directory header, which has more fields. */
function record(signature, { crc, size, offset, name }) {
  const central = signature === 0x02014b50;
  const view = new DataView(new ArrayBuffer(central ? 46 : 30));
  const start = central ? 6 : 4;
  view.setUint32(0, signature, true);
  if (central) view.setUint16(4, 20, true); // made by version 2.0
  view.setUint16(start, 20, true); // needs version 2.0
  view.setUint16(start + 2, 0x0800, true); // names are UTF-8
  view.setUint16(start + 8, 0x0021, true); // 1 January 1980
  view.setUint32(start + 10, crc, true);
  view.setUint32(start + 14, size, true);
  view.setUint32(start + 18, size, true);
  view.setUint16(start + 22, name.length, true);
  if (central) view.setUint32(42, offset, true);
  return new Uint8Array(view.buffer);
}
