// The key of a server that wants one: kept for this tab, and sent with everything that the page asks for.

const KEY = "key";
const held = { value: read() };

function read() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return ""; // storage is forbidden: the key is asked for at every visit
  }
}

function keep(value) {
  held.value = value;
  try {
    sessionStorage.setItem(KEY, value);
  } catch (error) {
    console.info("not remembered:", error.message);
  }
}

export const keyHeaders = () => (held.value ? { Authorization: `Bearer ${held.value}` } : {});

/** Browsers cannot set headers of a WebSocket: the key goes along as a subprotocol. */
export const keyProtocols = () => (held.value ? ["tandem", `openai-insecure-api-key.${held.value}`] : []);

/** Resolves to whether the visitor has given a key. `dialog` has a form with a field "key" and an output. */
export function askForKey(dialog) {
  const form = dialog.querySelector("form");
  form.elements.wrong.textContent = held.value ? "The server does not know this key." : "";
  form.elements.key.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    const onClose = () => {
      const given = form.elements.key.value.trim();
      // What no header can carry cannot be a key.
      if (dialog.returnValue === "use") keep(/^[\x21-\x7e]*$/.test(given) ? given : "?");
      resolve(dialog.returnValue === "use");
    };
    dialog.addEventListener("close", onClose, { once: true });
  });
}
