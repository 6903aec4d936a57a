{{- define "tandem.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Arguments: root, tier */}}
{{- define "tandem.name" -}}{{ include "tandem.fullname" .root }}-{{ .tier }}{{- end }}

{{- define "tandem.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .tier }}
{{- end }}

{{- define "tandem.labels" -}}
{{ include "tandem.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "tandem.image" -}}
{{- with .root.Values.image.registry }}{{ . }}/{{ end }}{{ (index .root.Values .tier).image }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "tandem.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "tandem.podSecurity" -}}
serviceAccountName: {{ include "tandem.fullname" .root }}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where pods go. */}}
{{- define "tandem.placement" -}}
{{- $values := index .root.Values .tier }}
terminationGracePeriodSeconds: {{ add .root.Values.shutdown.lameduckSeconds .root.Values.shutdown.drainSeconds 10 }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "tandem.selector" $ | nindent 8 }}
  {{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Kubernetes cannot probe through TLS: with it, health has a port of its own. */}}
{{- define "tandem.healthPort" -}}
{{- $ports := (index .root.Values .tier).ports -}}
{{- if .root.Values.tls.enabled }}{{ $ports.health }}{{ else }}{{ $ports.grpc }}{{ end }}
{{- end }}

{{- define "tandem.probes" -}}
{{- $port := include "tandem.healthPort" . }}
startupProbe:
  grpc: {port: {{ $port }}, service: liveness}
  periodSeconds: 2
  failureThreshold: 90
livenessProbe:
  grpc: {port: {{ $port }}, service: liveness}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  grpc: {port: {{ $port }}}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}

{{- define "tandem.ports" -}}
ports:
  {{- range $name, $port := (index .root.Values .tier).ports }}
  {{- if or (ne $name "health") $.root.Values.tls.enabled }}
  - {name: {{ $name }}, containerPort: {{ $port }}}
  {{- end }}
  {{- end }}
  - {name: metrics, containerPort: {{ .root.Values.metrics.port }}}
{{- end }}

{{/* Flags that every tier has. */}}
{{- define "tandem.commonArgs" -}}
{{- $values := index .root.Values .tier -}}
- --listen=0.0.0.0:{{ $values.ports.grpc }}
- --metrics-port={{ .root.Values.metrics.port }}
- --lameduck-seconds={{ .root.Values.shutdown.lameduckSeconds | int64 }}
- --drain-seconds={{ .root.Values.shutdown.drainSeconds | int64 }}
- --max-connection-age={{ .root.Values.maxConnectionAge | int64 }}
{{- if .root.Values.tls.enabled }}
- --health-listen=0.0.0.0:{{ $values.ports.health }}
- --tls-cert=/etc/tandem/tls/tls.crt
- --tls-key=/etc/tandem/tls/tls.key
{{- if or (ne .tier "gateway") .root.Values.tls.clientCertificates }}
- --tls-client-ca=/etc/tandem/tls/ca.crt
{{- end }}
{{- if ne .tier "decoder" }}
- --tls-ca=/etc/tandem/tls/ca.crt
- --tls-server-name={{ .root.Values.tls.serverName }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tandem.modelArgs" -}}
- --model={{ .Values.model.name }}
- --hub={{ .Values.model.hub }}
{{- end }}

{{/* Everything writable is a volume; caches of libraries go there too. */}}
{{- define "tandem.commonEnv" -}}
- {name: HOME, value: /tmp}
- {name: XDG_CACHE_HOME, value: /cache}
{{- with (index .root.Values .tier).env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tandem.modelEnv" -}}
- {name: TANDEM_CACHE, value: /cache}
{{- if .Values.model.cache.enabled }}
- {name: HF_HOME, value: /models/hf}
- {name: MODELSCOPE_CACHE, value: /models/ms}
{{- if .Values.model.fetchJob.enabled }}
- {name: TANDEM_OFFLINE, value: "1"}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- end }}
{{- end }}
{{- end }}

{{- define "tandem.modelClaim" -}}
{{ .Values.model.cache.existingClaim | default (printf "%s-models" (include "tandem.fullname" .)) }}
{{- end }}

{{- define "tandem.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: cache, mountPath: /cache}
{{- if .root.Values.tls.enabled }}
- {name: tls, mountPath: /etc/tandem/tls, readOnly: true}
{{- end }}
{{- if and .root.Values.model.cache.enabled (ne .tier "gateway") }}
- {name: models, mountPath: /models{{ if .root.Values.model.fetchJob.enabled }}, readOnly: true{{ end }}}
{{- end }}
{{- end }}

{{- define "tandem.volumes" -}}
- name: tls
  secret: {secretName: {{ required "tls.existingSecret is needed with tls.enabled" .Values.tls.existingSecret }}}
{{- end }}

{{- define "tandem.modelVolume" -}}
- name: models
  persistentVolumeClaim: {claimName: {{ include "tandem.modelClaim" . }}}
{{- end }}
