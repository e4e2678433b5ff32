// What a person has chosen on this page, kept in this browser under "relay.NAME".

// `otherwise` where nothing is kept, or the browser keeps nothing for this site.
export function read(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(`relay.${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function write(name, value) {
  try {
    localStorage.setItem(`relay.${name}`, JSON.stringify(value));
  } catch {
    // The choice lasts as long as the page.
  }
}
