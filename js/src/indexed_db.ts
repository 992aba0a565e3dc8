// Promises of IndexedDB.

/** What a request brings. */
export function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
    if (request instanceof IDBOpenDBRequest) {
      request.onblocked = () => reject(new Error('another page holds the database'))
    }
  })
}

/** Ready when all of a transaction has been done; rejected if nothing of it was. */
export function completed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve()
    // Of which a quota that is exceeded is the likeliest.
    transaction.onabort = () => reject(transaction.error ?? new Error('the transaction was aborted'))
  })
}
