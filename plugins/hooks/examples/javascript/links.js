// Taking links out of text that comes whole or in pieces. Knows nothing of hooks, so that it can be tested by itself.

const START = /https?:\/\//i;
const STARTS = ['http://', 'https://'];
/** The first character that is not of a link's host; `\` is one, because browsers take it for `/`. */
const HOST_END = /[\s/?#\\<>"'`()[\]{},;!*|]/;
const LINK_END = /[\s<>"'`()[\]{}|]/;
/** Longer than any host name may be, so that what has no end is not held back for ever. */
const HOST_LENGTH_MAX = 300;

/** How many links a text has. */
export function count(text) {
    return text.split(START).length - 1;
}

/** Takes links out of one answer. A link's fate is known once its host is complete. */
export class LinkFilter {
    #allow;
    #replacement;
    #held = '';
    #skipping = false;

    /** `allow` lists hosts; the hosts below them are allowed too. */
    constructor(allow, replacement) {
        this.#allow = allow;
        this.#replacement = replacement;
    }

    /** Takes a piece and returns what can be let go; `last` lets go of everything. */
    feed(piece, last) {
        let rest = this.#held + piece;
        let out = '';
        this.#held = '';
        for (;;) {
            if (this.#skipping) {
                const end = rest.search(LINK_END);
                if (end < 0) return out;
                rest = rest.slice(end);
                this.#skipping = false;
            }
            const start = rest.match(START);
            if (!start) {
                const keep = last ? 0 : beginningAtEnd(rest);
                this.#held = rest.slice(rest.length - keep);
                return out + rest.slice(0, rest.length - keep);
            }
            out += rest.slice(0, start.index);
            rest = rest.slice(start.index);
            const link = start[0].length;
            const end = rest.slice(link).search(HOST_END);
            if (end < 0 && !last && rest.length < HOST_LENGTH_MAX) {
                this.#held = rest;
                return out;
            }
            const hostEnd = end < 0 ? rest.length : link + end;
            if (this.#isAllowed(rest.slice(link, hostEnd))) {
                out += rest.slice(0, hostEnd);
            } else {
                out += this.#replacement;
                this.#skipping = true;
            }
            rest = rest.slice(hostEnd);
        }
    }

    #isAllowed(authority) {
        // Without the user before it, the port after it, and the full stop of the sentence.
        const host = authority.slice(authority.lastIndexOf('@') + 1).replace(/[:.]\d*$/, '').toLowerCase();
        return this.#allow.some((allowed) => host === allowed || host.endsWith('.' + allowed));
    }
}

/** The length of the text's end that could become the beginning of a link. */
function beginningAtEnd(text) {
    const lower = text.toLowerCase();
    for (let length = Math.min(STARTS[1].length - 1, text.length); length > 0; length--) {
        if (STARTS.some((start) => start.startsWith(lower.slice(-length)))) return length;
    }
    return 0;
}
