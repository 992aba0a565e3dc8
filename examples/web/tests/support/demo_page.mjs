// What a user does and sees on the page.
import assert from 'node:assert/strict'

/** The slowest thing is a server that vanishes without a word, on a machine that is busy. */
const PATIENCE_MS = 30_000

export class DemoPage {
  #page

  static async open(browser, site) {
    const demo = new DemoPage()
    demo.#page = await browser.newPage(site.url)
    await demo.until('is ready', () => !document.querySelector('#connect').disabled)
    return demo
  }

  /** Waits until `condition`, which runs in the page, returns something; returns that. */
  async until(what, condition, ...values) {
    const deadline = Date.now() + PATIENCE_MS
    for (;;) {
      const result = await this.#page.evaluate(condition, ...values)
      if (result) return result
      if (Date.now() > deadline) assert.fail(`the page never ${what}; it shows:\n${await this.visibleText()}`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  visibleText() {
    return this.#page.evaluate(() => document.body.innerText)
  }

  text(id) {
    return this.#page.evaluate((id) => document.getElementById(id).textContent, id)
  }

  /** The whole of a peer id of which the page shows a short form. */
  peerId(id) {
    return this.#page.evaluate((id) => document.getElementById(id).title, id)
  }

  /** Selects a transport, and returns the address that the page will dial. */
  async choose(transport) {
    await this.#page.click(`input[value=${transport}]`)
    return this.#page.evaluate(() => document.querySelector('#address').value)
  }

  /** The reason that the page gives for not offering a transport, if it does not. */
  reasonAgainst(transport) {
    return this.#page.evaluate((transport) => {
      const input = document.querySelector(`input[value=${transport}]`)
      return input.disabled ? input.parentElement.querySelector('.about').textContent : null
    }, transport)
  }

  async connect(transport) {
    await this.choose(transport)
    await this.#page.click('#connect')
    await this.isConnected()
  }

  async isConnected() {
    await this.until('is connected', () =>
      document.querySelector('#status').textContent.startsWith('Connected'),
    )
  }

  async dialOther(address) {
    await this.choose('other')
    await this.#page.fill('#address', address)
    await this.#page.click('#connect')
  }

  disconnect() {
    return this.#page.click('#disconnect')
  }

  reconnect() {
    return this.#page.click('#reconnect')
  }

  /** Waits for an error, and returns its code and what the page says to do. */
  problem() {
    return this.until('shows an error', () => {
      if (document.querySelector('#problem').hidden) return null
      const text = (id) => document.getElementById(id).textContent
      return { code: text('problem-code'), advice: text('problem-advice'), message: text('problem-message') }
    })
  }

  async send(path) {
    await this.#page.setFile('#file', path)
    await this.#page.click('#send')
  }

  /** Waits until some of the file has come back. */
  async isInMidTransfer() {
    await this.until('gets something back', () => document.querySelector('#returned').value > 0)
  }

  cancel() {
    return this.#page.click('#cancel')
  }

  /** Waits for the end of a transfer: what the page says of it, and the hashes if it shows them. */
  outcome() {
    return this.until('ends the transfer', () => {
      const text = document.querySelector('#outcome').textContent
      if (text === '') return null
      const hashes = ['sent', 'received', 'returned'].map(
        (id) => document.getElementById(`hash-${id}`).textContent,
      )
      const marks = [...document.querySelectorAll('#hashes .mark')].map((mark) => mark.textContent)
      return { text, ...(!document.querySelector('#hashes').hidden && { hashes, marks }) }
    })
  }

  screenshot(path) {
    return this.#page.screenshot(path)
  }

  /** Closes the page as a user does, in the middle of whatever it is doing. */
  close() {
    return this.#page.close()
  }

  /** Disconnects and closes the page, in which nothing may have gone wrong unseen. */
  async closeUnharmed() {
    await this.disconnect()
    assert.equal(await this.text('status'), 'Not connected')
    const uncaught = await this.#page.evaluate(() => window.uncaught)
    await this.close()
    assert.deepEqual(uncaught, [])
  }
}
