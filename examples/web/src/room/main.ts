/** The room: a node that is reached through a relay, the one who invited it, and whoever it invites. */
import { Peerloom } from 'peerloom'
import { element, prepareCopyButtons, showPeer } from '../elements.ts'
import { RoundTripCard } from '../round_trip_card.ts'
import { agentVersion } from './agent.ts'
import { Chat } from './chat.ts'
import { ChatCard } from './chat_card.ts'
import { removeLeftovers } from './file_sink.ts'
import { FilesCard } from './files_card.ts'
import { InvitationCard } from './invitation_card.ts'
import { Joining, type JoiningState } from './joining.ts'
import { targetOf } from './link.ts'
import { labelOf, MemberList } from './member_list.ts'
import { type Change, type Member, Members } from './members.ts'
import { ProblemBox } from './problem_box.ts'
import { Recipients } from './recipients.ts'
import { type PlaceState, RelayPlace } from './relay_place.ts'
import { openTab } from './tab.ts'

const problems = new ProblemBox()
const roundTrips = new RoundTripCard()

prepareCopyButtons()
start().catch((error: unknown) => {
  problems.set('node', { title: 'Peerloom cannot start in this browser', error })
  element('place').textContent = 'Not started'
})

async function start(): Promise<void> {
  const tab = await openTab()
  void removeLeftovers()
  const node = await Peerloom.create({ identity: tab.seed, agentVersion: agentVersion() })
  showPeer('own-peer', node.peerId)
  // Another link in the address bar is another room.
  addEventListener('hashchange', () => location.reload())
  // A page that the browser kept and brings back has said goodbye to everyone.
  addEventListener('pageshow', ({ persisted }) => persisted && location.reload())
  node.addEventListener('error', ({ detail }) =>
    problems.set('node', { title: 'Something went wrong in this page', error: detail }),
  )

  const list = new MemberList()
  const invitation = new InvitationCard()
  const update = () => {
    list.show(members.all)
    recipients.show(members.present)
    roundTrips.show(recipients.chosen[0]?.samples ?? [])
    chat.update()
    files.update()
  }
  const members: Members = new Members(node, (member, change) => {
    tell(chat, member, change)
    if (change === 'came') invitation.fold()
    update()
  })
  const recipients: Recipients = new Recipients(update)
  const chat: ChatCard = new ChatCard(new Chat(node), members, recipients)
  const files: FilesCard = new FilesCard(node, tab.name, members, recipients)
  await Promise.all([chat.listen(), files.listen()])
  update()

  const place = new RelayPlace(node, (state) => {
    showPlace(state, place)
    if (state.is !== 'reserved') return
    invitation.show(state.address)
    // The relay is back, and with it the way to the one who invited.
    joining?.retry()
  })
  showPlace(place.state, place)
  const joining = prepareJoining(node, members)
  if (joining) members.expect(joining.peer)
  void place.keep()
  // Both begin with the relay, and if that is gone, the page should say so.
  await place.tried
  void joining?.run()
}

/** What to do about the link that this page was opened with, if it was with one. */
function prepareJoining(node: Peerloom, members: Members): Joining | undefined {
  const target = targetOf(location.hash)
  if (!target) return undefined
  if ('wrong' in target) {
    problems.set('link', {
      title: 'This link leads nowhere',
      error: { code: 'BAD_LINK', message: target.wrong },
      advice:
        'It is not complete, or not the link of a room. Ask for it again, or invite others with the link below.',
    })
    return undefined
  }
  // The tab that made the link, or came back to it.
  if (target.peer === node.peerId) return undefined
  const joining: Joining = new Joining(node, target, (state) =>
    showJoining(state, target.peer, members, joining),
  )
  return joining
}

function showJoining(state: JoiningState, peer: string, members: Members, joining: Joining): void {
  if (state.is === 'dialing') members.expect(peer)
  if (state.is === 'joined') problems.set('joining', undefined)
  if (state.is !== 'failed') return
  members.missed(peer)
  // A page that reloads is not there for a moment.
  if (state.attempts === 1 && members.all.some(({ id, goneSince }) => id === peer && goneSince > 0)) return
  problems.set('joining', {
    title: state.relayed ? 'There is no direct path' : 'Whoever invited is not there',
    error: state.error,
    advice: state.relayed
      ? 'Messages go through the relay, as long as it allows; files do not. A firewall between the two may be the reason. This page tries again.'
      : 'Their page may be closed, or have lost the relay. Leave this one open: it tries again, and joins as soon as they are back. Or ask for a new link.',
    retry: () => joining.retry(),
  })
}

function showPlace(state: PlaceState, place: RelayPlace): void {
  const text = {
    asking: 'Asking the relay for a place…',
    reserved: 'Others reach this page through the relay.',
    failed: 'Nobody new finds this page now.',
  }[state.is]
  const line = element('place')
  line.dataset.state = state.is
  if (line.textContent !== text) line.textContent = text
  if (state.is !== 'failed') {
    problems.set('relay', undefined)
    return
  }
  problems.set('relay', {
    title: state.lost ? 'The relay is lost' : 'The relay gives this page no place',
    error: state.error,
    advice: state.lost
      ? 'Direct connections go on without it, but nobody new can join. This page asks for its place again by itself.'
      : 'Without it nobody finds this page. Check that the server runs; this page asks again by itself.',
    // A place that was had once, the node asks for by itself.
    ...(!state.lost && { retry: () => place.retry() }),
  })
}

/** The news in the chat. */
function tell(chat: ChatCard, member: Member, change: Change): void {
  const name = labelOf(member)
  if (change === 'came')
    chat.tell(`${name} is here${member.state === 'direct' ? '' : ', through the relay'}.`)
  if (change === 'upgraded') chat.tell(`${name} is connected directly now.`)
  if (change === 'left') chat.tell(`${name} has left.`)
}
