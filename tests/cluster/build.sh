#!/usr/bin/env bash
# Programs of a true Kubernetes (PROGRAMS), built from Debian 12's own packages into the folder OUT, in the present folder,
# which may be thrown away afterwards, and what Debian has ready: FILES, by their paths in PACKAGES. tests/cluster/binaries.py
# calls it, and keeps what it made under this file's hash.
#
# Debian builds only kubectl from the source package, which nevertheless holds the whole tree with all that it imports.
# Its packages are unpacked beside it and not installed: `apt install etcd-server` would start a service. Nothing of the
# machine's own apt changes, and root is not needed.
set -euo pipefail
: "${OUT:?the folder for the programs}" "${PROGRAMS:?}" "${PACKAGES:?}" "${FILES:?}"
read -ra programs <<<"$PROGRAMS"
read -ra ready <<<"$PACKAGES"
read -ra files <<<"$FILES"
VERSION=1.20.2
SOURCE="1.20.5+really$VERSION"
SUITE=bookworm

# What it is at, with the seconds since the start.
step() { printf '%4d s  %s\n' "$SECONDS" "$*"; }

step "Debian's package lists"
mkdir -p apt/parts apt/lists/partial packages root
# This machine's own mirrors of that release, for its sources as well.
for file in /etc/apt/sources.list.d/*.sources; do
    if grep -qsE "^Suites:(.*[[:space:]])?$SUITE([[:space:]]|$)" "$file"; then
        sed -E 's/^Types:.*/Types: deb deb-src/' "$file" >"apt/parts/$(basename "$file")"
    fi
done
{ cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } |
    sed -nE "s/^deb(-src)?([[:space:]].*[[:space:]]$SUITE[[:space:]].*)/deb\2\ndeb-src\2/p" | sort -u >apt/parts/lines.list
grep -q . apt/parts/* || { echo "apt's sources have no Debian 12 ($SUITE), from which Kubernetes $VERSION is built" >&2; exit 3; }
apt=(-o "Dir::State::lists=$PWD/apt/lists" -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$PWD/apt/parts"
    -o "Dir::Cache=$PWD/apt" -o "APT::Sandbox::User=" -o "Acquire::Retries=3" -qq)
apt-get "${apt[@]}" update

step "sources and packages"
revision=$(apt-cache "${apt[@]}" showsrc kubernetes | sed -n "s/^Version: \($SOURCE-.*\)/\1/p" | sort -uV | tail -n 1)
[ -n "$revision" ] || { echo "Debian has no source package kubernetes $SOURCE any more" >&2; exit 3; }
cd packages
apt-get "${apt[@]}" source --download-only "kubernetes=$revision"
apt-get "${apt[@]}" download golang-1.19-go golang-1.19-src "${ready[@]}"
cd ..
for package in packages/*.deb; do dpkg-deb --extract "$package" root; done
# Where its import paths expect it: Debian's way of building, without modules.
export GOROOT=$PWD/root/usr/lib/go-1.19 GOPATH=$PWD/go GOCACHE=$PWD/cache GOPROXY=off GO111MODULE=off GOFLAGS= CGO_ENABLED=0
export PATH=$GOROOT/bin:$PATH
# The compiler, a process for each package, collects no garbage before it has this much.
export GOGC=off GOMEMLIMIT=1GiB
tree=$GOPATH/src/k8s.io/kubernetes
mkdir -p "$tree"
tar --extract --gzip --file packages/kubernetes_"$SOURCE".orig.tar.gz --directory "$tree" --strip-components=1
cd "$tree"

# The one generated file that the source package lacks is made as upstream's Makefile makes it.
step "the API's description"
go build -o "$GOPATH/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
described=$(grep --recursive --files-with-matches --include='*.go' --exclude='*_test.go' --exclude='zz_generated*' \
    '+k8s:openapi-gen=' pkg cmd plugin staging/src | xargs -n 1 dirname | sort -u |
    sed -e 's#^staging/src/#k8s.io/kubernetes/vendor/#' -e 's#^\(pkg\|cmd\|plugin\)/#k8s.io/kubernetes/\1/#' | paste -sd,)
"$GOPATH/openapi-gen" --logtostderr --input-dirs "$described" --output-package k8s.io/kubernetes/pkg/generated/openapi \
    --output-file-base zz_generated.openapi --go-header-file hack/boilerplate/boilerplate.generatego.txt \
    --report-filename "$GOPATH/violations" --output-base "$GOPATH/src"

mkdir -p "$OUT"
cp "${files[@]/#/$GOROOT/../../../}" "$OUT/"
# Upstream's own, which holds a Pod's namespaces and does nothing.
if [[ " $PROGRAMS " == *" kubelet "* ]]; then gcc -Os -static -DVERSION=3.2 -o "$OUT/pause" build/pause/linux/pause.c; fi

# Without the clouds' libraries and without Docker: 250 packages less. All at once, so that what is compiled for one
# goes on while another is linked, on one processor.
step "${programs[*]}"
go build -tags=providerless,dockerless -o "$OUT/" \
    -ldflags "-s -w -X k8s.io/kubernetes/vendor/k8s.io/component-base/version.gitVersion=v$VERSION" \
    "${programs[@]/#/./cmd/}"
step "done"
