import { defineConfig } from 'vite'

export default defineConfig({
  // Relative, so that the built page works in whatever folder it is served from.
  base: './',
  build: {
    target: 'es2022',
    sourcemap: true,
    rolldownOptions: { input: ['index.html', 'room.html'] },
  },
  // Vite's development server bundles dependencies into one file, away from the Wasm that lies beside them.
  optimizeDeps: { exclude: ['peerloom'] },
})
