/** Why the server refused: its own words, else the status. */
export async function reasonOf(answer) {
  const data = await answer.json().catch(() => null);
  return typeof data?.error === "string"
    ? data.error
    : `The server answered ${answer.status} ${answer.statusText}.`;
}
