// What a visitor chose, for the next visit. Browsers may forbid storage: then nothing is remembered.

export function recall(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

export function remember(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch (error) {
    console.info("not remembered:", error.message);
  }
}
