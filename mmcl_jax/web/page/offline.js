// Lets the page open without a network after its first visit.

// `loaded()` waits for what is being loaded when the worker begins to listen. `files` are kept even if the browser has
// not yet listed them among what was loaded.
export async function keepForOffline(files, loaded) {
  if (!navigator.serviceWorker) return; // pages from plain http, but for localhost, have none
  await navigator.serviceWorker.register("offline_worker.js");
  const { scope } = await navigator.serviceWorker.ready;
  await loaded();
  const listed = performance.getEntriesByType("resource").map((each) => each.name);
  const addresses = [...files.map((name) => new URL(name, scope).href), ...listed];
  const cache = await caches.open(scope);
  await cache.addAll(new Set([document.baseURI, ...addresses.filter((address) => address.startsWith(scope))]));
}
