// Node's own fetch, as requests_client.py.
const [, , wish, ...asked] = process.argv;
for (const words of asked) {
  const [method, url] = words.split(" ");
  const answer = await fetch(url, { method, body: method === "POST" ? wish : undefined });
  console.log(JSON.stringify([answer.status, await answer.json()]));
}
