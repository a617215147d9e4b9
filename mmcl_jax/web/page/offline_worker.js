// Keeps the files of the page, so that it opens without a network, too. With one, the newest files are taken.
const FILES = new Set([/*files*/]); // paths in the folder, which the export lists

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && isOurs(event.request.url)) event.respondWith(answer(event));
});

// At another time another program may serve the same address: what is not of this page is left to it.
function isOurs(address) {
  const { scope } = self.registration;
  return address.startsWith(scope) && FILES.has(address.slice(scope.length).split("#")[0]);
}

async function answer(event) {
  let fresh;
  try {
    fresh = await fetch(event.request);
  } catch (error) {
    const kept = await find(event.request);
    if (kept) return kept;
    throw error;
  }
  if (fresh.status === 200) event.waitUntil(keep(event.request, fresh.clone()));
  return fresh;
}

// The kept answer; undefined if there is none, or if the browser refuses its storage.
async function find(request) {
  try {
    return await (await caches.open(self.registration.scope)).match(request);
  } catch {
    return undefined;
  }
}

async function keep(request, answered) {
  try {
    await (await caches.open(self.registration.scope)).put(request, answered);
  } catch (error) {
    console.info(`${request.url} is not kept for later: ${error.message}`);
  }
}
