// Lets the page open without a network after its first visit.

export async function keepForOffline() {
  if (!navigator.serviceWorker) return; // pages from plain http, but for localhost, have none
  await navigator.serviceWorker.register("offline_worker.js");
  const { scope } = await navigator.serviceWorker.ready;
  // What was loaded before the worker began to listen.
  const loaded = performance.getEntriesByType("resource").map((each) => each.name);
  const cache = await caches.open(scope);
  await cache.addAll([document.baseURI, ...new Set(loaded.filter((address) => address.startsWith(scope)))]);
}
