// What people do and see in a room.
import assert from 'node:assert/strict'

/** A relay that vanishes without a word is noticed late, and asked again in growing intervals. */
const PATIENCE_MS = 90_000

export class RoomPage {
  #page

  /** Opens the room's page, or the `link` that somebody has given. */
  static async open(browser, site, link = `${site.url}room.html`) {
    const room = new RoomPage()
    room.#page = await browser.newPage(link)
    await room.until('has a peer id', () => document.querySelector('#own-peer')?.title)
    return room
  }

  /** Waits until `condition`, which runs in the page, returns something; returns that. */
  async until(what, condition, ...values) {
    const deadline = Date.now() + PATIENCE_MS
    for (;;) {
      // In the middle of a reload there is no page to ask.
      const result = await this.#page.evaluate(condition, ...values).catch(() => undefined)
      if (result) return result
      if (Date.now() > deadline) assert.fail(`the page never ${what}; it shows:\n${await this.visibleText()}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  visibleText() {
    return this.#page.evaluate(() => document.body.innerText)
  }

  evaluate(run, ...values) {
    return this.#page.evaluate(run, ...values)
  }

  peerId() {
    return this.until('has a peer id', () => document.querySelector('#own-peer').title)
  }

  /** The link to this page, once it has its place at the relay. */
  link() {
    return this.until('has a link', () => {
      const reserved = document.querySelector('#place').dataset.state === 'reserved'
      return reserved && document.querySelector('#link').value
    })
  }

  /** Waits until the path to `peer` is `direct`, `relayed`, or (empty) none. */
  async hasPath(peer, path) {
    await this.until(
      `has the path ${path || 'none'} to ${peer}`,
      (peer, path) => {
        const row = document.querySelector(`#members li[data-peer="${peer}"]`)
        return row && row.dataset.path === path
      },
      peer,
      path,
    )
  }

  /** What the page says of the path to `peer`. */
  path(peer) {
    return this.#page.evaluate(
      (peer) => document.querySelector(`#members li[data-peer="${peer}"] .path`).textContent,
      peer,
    )
  }

  /** Waits until round trips to `peer` are shown. */
  async measures(peer) {
    await this.until(
      'shows a round trip',
      (peer) => / ms$/.test(document.querySelector(`#members li[data-peer="${peer}"] .path`).textContent),
      peer,
    )
  }

  async say(text) {
    await this.until('can send', () => !document.querySelector('#say').disabled)
    await this.#page.fill('#message', text)
    await this.#page.click('#say')
  }

  /** Waits until a message that others wrote is shown. */
  async hears(text) {
    await this.until(
      `hears ${text}`,
      (text) =>
        [...document.querySelectorAll('#log .theirs .text')].some((line) => line.textContent === text),
      text,
    )
  }

  /** Waits until a message of this page's is marked as delivered, or as not. */
  delivered(text) {
    return this.until(
      `learns what became of ${text}`,
      (text) => {
        const lines = [...document.querySelectorAll('#log .mine')]
        return lines
          .find((line) => line.querySelector('.text').textContent === text)
          ?.querySelector('.delivery').textContent
      },
      text,
    )
  }

  async sendFile(path) {
    await this.until('can send files', () => !document.querySelector('#file').disabled)
    await this.#page.setFile('#file', path)
  }

  /** Presses the button of the newest transfer that has this label, as soon as it is there. */
  async press(label) {
    const selector = await this.until(
      `offers ${label}`,
      (label) => {
        const buttons = [...document.querySelectorAll('#transfers li:first-child .actions > *')]
        const index = buttons.findIndex((button) => button.textContent === label)
        return index >= 0 && `#transfers li:first-child .actions > :nth-child(${index + 1})`
      },
      label,
    )
    await this.#page.click(selector)
  }

  /** Waits until the newest transfer is `done`, `cancelled` or `failed`: what the page says of it. */
  transfer(state) {
    return this.until(
      `has a transfer that is ${state}`,
      (state) => {
        const row = document.querySelector('#transfers li:first-child')
        return row?.dataset.state === state && row.querySelector('.state').textContent
      },
      state,
    )
  }

  /** Waits until some of the newest transfer's bytes have arrived. */
  async isInMidTransfer() {
    await this.until('gets a part of the file', () => {
      const bar = document.querySelector('#transfers li:first-child progress')
      return bar && bar.value > 0
    })
  }

  /** What `Save` of the newest transfer would save: its name, and its SHA-256 as far as a page can hash at once. */
  saved() {
    return this.until('offers the file', () => {
      const link = document.querySelector('#transfers li:first-child a[download]')
      return link && { name: link.download, url: link.href }
    })
  }

  /** Waits for an error, and returns its title, its code and what the page says to do. */
  problem() {
    return this.until('shows an error', () => {
      if (document.querySelector('#problem').hidden) return null
      const text = (id) => document.getElementById(`problem-${id}`).textContent
      return { title: text('title'), code: text('code'), advice: text('advice'), message: text('message') }
    })
  }

  /** The last error that the page has shown, whether it still does or not; empty if there was none. */
  lastProblem() {
    return this.#page.evaluate(() => {
      const message = document.getElementById('problem-message').textContent
      return message === '' ? '' : `${document.getElementById('problem-code').textContent} ${message}`
    })
  }

  async hasNoProblem() {
    await this.until('is rid of its error', () => document.querySelector('#problem').hidden)
  }

  screenshot(path) {
    return this.#page.screenshot(path)
  }

  reload() {
    return this.#page.reload()
  }

  close() {
    return this.#page.close()
  }

  /** Closes the page, in which nothing may have gone wrong unseen. */
  async closeUnharmed() {
    const uncaught = await this.#page.evaluate(() => window.uncaught)
    await this.close()
    assert.deepEqual(uncaught, [])
  }
}
