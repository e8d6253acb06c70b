# Everything installs what it needs first: a machine may have only Node and npm, or only Bun.
BUN := tools/node_modules/.bin/bun
BUNX := $(BUN) --bun x
STAMP := node_modules/.warren-setup
STAMP_DEV := node_modules/.warren-setup-dev
SETUP_INPUTS := tools/setup.sh tools/package.json package.json bun.lock $(wildcard */package.json) $(wildcard examples/*/package.json)

.PHONY: worker help test-hosts setup setup-dev lint check fmt test demo sim bench gen client clean baseline

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## what running needs: Bun, packages and (as root on Debian) bubblewrap

setup-dev: $(STAMP_DEV) ## and what tests and benches need: NATS, PostgreSQL, Docker, a C compiler

$(STAMP): $(SETUP_INPUTS)
	@sh tools/setup.sh
	@touch $@

$(STAMP_DEV): $(SETUP_INPUTS)
	@sh tools/setup.sh dev
	@touch $(STAMP) $@

lint: $(STAMP) ## format, lint, types, imports, contracts
	@$(BUNX) biome ci --colors=off --error-on-warnings .
	@$(BUNX) tsc --noEmit -p .
	@$(BUN) tools/check-imports.ts
	@$(BUN) tools/check-proto.ts
	@$(BUN) tools/check-promises.ts

check: lint $(STAMP_DEV) ## lint, and the rooms' own tests: the quick gate
	@$(BUN) tools/test.ts unit

fmt: $(STAMP) ## mend format, imports and what lint can mend
	@$(BUNX) biome check --write .
	@$(BUNX) buf format -w

gen: $(STAMP) ## generate TypeScript from the contracts, and docs/json.md
	@$(BUNX) buf generate
	@$(BUN) cli/src/json/write.ts

baseline: $(STAMP) ## take today's contracts as those that later ones must not break
	@$(BUNX) buf build proto --exclude-source-info -o proto/baseline.binpb

test: lint $(STAMP_DEV) ## everything CI runs
	@$(BUN) tools/test.ts all

test-hosts: $(STAMP_DEV) ## the shipped compose file on real containers: three hosts, of which one dies (root; part of test)
	@$(BUN) tools/test.ts test/hosts

demo: $(STAMP) ## a whole cell with real tenants; ONCE=1 verifies and ends, NATS_URL=… runs it on JetStream
	@$(BUN) test/src/demo/main.ts

sim: $(STAMP) ## the scheduler's core under faults in virtual time: STEPS=1000000; SEED=7 repeats one
	@$(BUN) test/sim/main.ts

bench: $(STAMP_DEV) ## side-by-side measurements: NAME=agent; without a name, which there are
	@$(BUN) bench/src/harness/main.ts $(NAME)

client: $(STAMP) ## make the client library as an npm package in client/dist
	@$(BUN) client/build.ts

worker: $(STAMP) ## build the tenants' library for Node and Bun into worker/dist
	@$(BUN) worker/build.ts

clean: ## what was installed and built
	rm -rf node_modules */node_modules */dist examples/*/node_modules tools/node_modules
