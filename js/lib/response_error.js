/** Message of a failed response: the server's own, else its status. */
export async function errorMessage(response) {
  const data = await response.json().catch(() => null);
  return typeof data?.error === "string"
    ? data.error
    : `The server answered ${response.status} ${response.statusText}.`;
}
