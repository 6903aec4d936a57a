#!/usr/bin/env bash
# Generates the stubs, compiles with Debian's grpc-java (no Maven Central needed) and runs the unit tests.
# Programs start with clients/java/run.sh. Users of Maven: pom.xml.
set -euo pipefail
cd "$(dirname "$0")"
mapfile -t packages < debian.txt
command -v javac >/dev/null || packages+=(openjdk-17-jdk-headless)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  apt-get -o DPkg::Lock::Timeout=500 update -q
  apt-get -o DPkg::Lock::Timeout=500 install -y -q --no-install-recommends "${missing[@]}"
fi

# google.rpc comes with Python's googleapis-common-protos; the health service's file with Debian's grpc-go.
python=${PYTHON:-../../.venv/bin/python}
common=$("$python" -c 'import google.rpc.status_pb2 as m, pathlib; print(pathlib.Path(m.__file__).parents[2])')
health=/usr/share/gocode/src/google.golang.org/grpc/debian/missing-sources/grpc/grpc-proto/master
rm -rf build
mkdir -p build/gen build/classes build/native
java=(--java_out=build/gen --plugin=protoc-gen-grpc-java=/usr/bin/grpc_java_plugin --grpc-java_out=build/gen)
protoc -I../../protos "${java[@]}" tandem/asr/v1/asr.proto tandem/asr/v1/batch.proto
protoc -I"$health" "${java[@]}" grpc/health/v1/health.proto
protoc -I"$common" -I/usr/include --java_out=build/gen \
  google/rpc/status.proto google/rpc/code.proto google/rpc/error_details.proto

jars=(grpc-api grpc-context grpc-core grpc-netty grpc-protobuf grpc-protobuf-lite grpc-stub netty-common
  netty-buffer netty-transport netty-transport-native-unix-common netty-resolver netty-codec netty-handler
  netty-handler-proxy netty-codec-http netty-codec-http2 netty-codec-socks netty-tcnative protobuf
  protobuf-util guava perfmark-api geronimo-annotation-1.3-spec gson error_prone_annotations)
classpath="$PWD/build/classes"
for jar in "${jars[@]}"; do
  classpath+=":/usr/share/java/$jar.jar"
done
printf '%s' "$classpath" > build/classpath
native=$(dpkg -L libnetty-tcnative-jni | grep "\.so$" | head -1)
cp -L "$native" build/native/libnetty_tcnative_linux_x86_64.so # the name that netty looks for; a link is not followed
mapfile -t sources < <(find build/gen src/main examples -name '*.java')
javac -nowarn -Xlint:-options --release 17 -cp "$classpath" -d build/classes "${sources[@]}"

tests="$classpath:/usr/share/java/junit4.jar:/usr/share/java/hamcrest-core.jar"
mkdir -p build/tests
javac --release 17 -cp "$tests" -d build/tests src/test/java/dev/tandem/client/*.java
java -cp "$tests:build/tests" org.junit.runner.JUnitCore dev.tandem.client.SentLogTest
