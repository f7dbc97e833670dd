{{- define "bouquet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* At most 40 characters: Kubernetes adds to the names of pods, and a label has at most 63. */}}
{{- define "bouquet.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "bouquet.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "bouquet.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "bouquet.superlink" -}}
{{- include "bouquet.fullname" . }}-superlink
{{- end }}

{{- define "bouquet.supernode" -}}
{{- include "bouquet.fullname" . }}-supernode
{{- end }}

{{/* What selects pods. It never changes, because a StatefulSet's selector cannot. */}}
{{- define "bouquet.selectorLabels" -}}
app.kubernetes.io/name: {{ include "bouquet.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "bouquet.labels" -}}
{{ include "bouquet.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: bouquet
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The name of an image. Arguments: the root, and the image's name. */}}
{{- define "bouquet.image" -}}
{{- $root := index . 0 -}}
{{- $problem := "image.tag is not set: give the tag of your images, as docs/kubernetes.md shows" -}}
{{- $tag := required $problem $root.Values.image.tag -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ index . 1 }}:{{ $tag }}
{{- end }}

{{/* Secrets: those of the user, or those that the hook creates. */}}
{{- define "bouquet.issuesCertificate" -}}
{{- if not (or .Values.tls.existingSecret .Values.tls.certManager.enabled) }}true{{ end }}
{{- end }}

{{- define "bouquet.authoritySecret" -}}
{{- include "bouquet.fullname" . }}-authority
{{- end }}

{{- define "bouquet.tlsSecret" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" (include "bouquet.fullname" .)) }}
{{- end }}

{{- define "bouquet.caSecret" -}}
{{- if include "bouquet.issuesCertificate" . }}
{{- include "bouquet.fullname" . }}-ca
{{- else }}
{{- include "bouquet.tlsSecret" . }}
{{- end }}
{{- end }}

{{- define "bouquet.seedSecret" -}}
{{- .Values.seed.existingSecret | default (printf "%s-seed" (include "bouquet.fullname" .)) }}
{{- end }}

{{/* Names by which the fleet and its owner call the SuperLink, beyond those that every certificate has. */}}
{{- define "bouquet.superlinkNames" -}}
{{- $service := include "bouquet.superlink" . -}}
{{- $qualified := printf "%s.%s" $service .Release.Namespace -}}
{{- concat (list $service $qualified (printf "%s.svc" $qualified)) .Values.superlink.names | toJson }}
{{- end }}

{{- define "bouquet.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 49999
runAsGroup: 49999
fsGroup: 49999
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "bouquet.containerSecurityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Labels of a pod. Arguments: the root, the component, and the user's own labels. */}}
{{- define "bouquet.podLabels" -}}
{{- $root := index . 0 -}}
{{ include "bouquet.selectorLabels" $root }}
app.kubernetes.io/component: {{ index . 1 }}
{{- with mergeOverwrite (dict) $root.Values.commonLabels (index . 2) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the pods of both StatefulSets have in common. Arguments: the root, the component, and its values. */}}
{{- define "bouquet.podSpec" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
automountServiceAccountToken: false
enableServiceLinks: false
# Its own init reaps processes and gives SIGTERM to a process that is not number 1, like `init: true` in Compose.
shareProcessNamespace: true
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
securityContext:
  {{- include "bouquet.podSecurityContext" $root | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml . | nindent 4 | trim }}
    {{- if not .labelSelector }}
    labelSelector:
      matchLabels:
        {{- include "bouquet.selectorLabels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ $component }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Probes that answer at once. A SuperNode that waits for its SuperLink is not ready, but must not be restarted. */}}
{{- define "bouquet.probes" -}}
readinessProbe:
  exec:
    command: [python3, -I, -S, /opt/bouquet/lib/bouquet/contract/readiness.py, "0"]
  periodSeconds: 10
  timeoutSeconds: 10
livenessProbe:
  exec:
    command: [python3, -I, -S, /opt/bouquet/lib/bouquet/contract/readiness.py, live]
  initialDelaySeconds: 60
  periodSeconds: 60
  timeoutSeconds: 30  # a busy host is no reason to restart a container
  failureThreshold: 3
{{- end }}

{{- define "bouquet.environment" -}}
- {name: BOUQUET_SEED_FILE, value: /run/secrets/bouquet/seed/seed}
{{- if .Values.dataset.existingClaim }}
- {name: BOUQUET_DATASET, value: /dataset}
{{- end }}
- {name: BOUQUET_DATASET_FALLBACK, value: /opt/bouquet/data/cifar10-sample}
- {name: BOUQUET_CACHE_DIR, value: /var/lib/bouquet/cache}
- {name: BOUQUET_CACHE_GIB, value: {{ .Values.cache.partitionsGiB | quote }}}
{{- if .Values.hub.existingClaim }}
- {name: BOUQUET_HF_CACHE, value: /hf-cache}
{{- end }}
{{- if .Values.hub.offline }}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- end }}
{{- if .Values.hub.tokenSecret }}
- {name: HF_TOKEN_PATH, value: /run/secrets/bouquet/hub/token}
{{- end }}
{{- with .Values.executor }}
- {name: EXECUTOR, value: {{ .kind }}}
- {name: EXECUTOR_PRELOAD, value: {{ join "," .preload | quote }}}
- {name: EXECUTOR_WORKERS, value: {{ .workers | quote }}}
- {name: EXECUTOR_IDLE, value: {{ .idleSeconds | quote }}}
- {name: EXECUTOR_TIMEOUT, value: {{ .timeoutSeconds | quote }}}
- {name: EXECUTOR_MESSAGES, value: {{ .messages | toString | quote }}}
- {name: EXECUTOR_GROWTH, value: {{ kindIs "invalid" .growthMiB | ternary "" (.growthMiB | toString) | quote }}}
{{- end }}
{{- end }}

{{- define "bouquet.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: run, mountPath: /run/bouquet}
- {name: seed, mountPath: /run/secrets/bouquet/seed, readOnly: true}
- {name: cache, mountPath: /var/lib/bouquet/cache}
{{- if .Values.dataset.existingClaim }}
- name: dataset
  mountPath: /dataset
  readOnly: true
  {{- with .Values.dataset.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
{{- if .Values.hub.existingClaim }}
- {name: hf-cache, mountPath: /hf-cache, readOnly: true}
{{- end }}
{{- if .Values.hub.tokenSecret }}
- {name: hub-token, mountPath: /run/secrets/bouquet/hub, readOnly: true}
{{- end }}
{{- end }}

{{- define "bouquet.volumes" -}}
- {name: tmp, emptyDir: {medium: Memory}}
- {name: run, emptyDir: {medium: Memory}}
- name: seed
  secret:
    secretName: {{ include "bouquet.seedSecret" . }}
    defaultMode: 0440
    items: [{key: seed, path: seed}]
- name: cache
  {{- if or .Values.cache.existingClaim .Values.cache.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ .Values.cache.existingClaim | default (printf "%s-cache" (include "bouquet.fullname" .)) }}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- with .Values.dataset.existingClaim }}
- name: dataset
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- with .Values.hub.existingClaim }}
- name: hf-cache
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- if .Values.hub.tokenSecret }}
- name: hub-token
  secret:
    secretName: {{ .Values.hub.tokenSecret }}
    defaultMode: 0440
    items: [{key: {{ .Values.hub.tokenKey | quote }}, path: token}]
{{- end }}
{{- end }}

{{/* Resources, with amounts as text: Kubernetes may refuse a bare number. Arguments: resources, further limits. */}}
{{- define "bouquet.resources" -}}
{{- $resources := index . 0 -}}
{{- $limits := mergeOverwrite (dict) ($resources.limits | default dict) (index . 1) -}}
{{- range $kind, $amounts := dict "limits" $limits "requests" ($resources.requests | default dict) }}
{{- if $amounts }}
{{ $kind }}:
{{- range $name, $amount := $amounts }}
  {{ $name }}: {{ $amount | toString | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- with $resources.claims }}
claims:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
