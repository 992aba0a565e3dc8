// What an application imports of ours: bundled, it is what is weighed, loaded and measured.
export { Peerloom } from 'peerloom'
