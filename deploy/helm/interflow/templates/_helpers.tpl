{{- define "interflow.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}
{{- end }}

{{/* Of the two roles: (list $ "logstore") */}}
{{- define "interflow.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "interflow.labels" -}}
{{ include "interflow.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end }}

{{/* The name of a headless Service, as others find it. */}}
{{- define "interflow.domain" -}}
{{ include "interflow.name" (index . 0) }}-{{ index . 1 }}.{{ (index . 0).Release.Namespace }}.svc.{{ (index . 0).Values.clusterDomain }}
{{- end }}

{{/* What must be said, and what can't be. */}}
{{- define "interflow.check" -}}
{{- $values := .Values }}
{{- if not (or $values.metadata.clusterFile.configMap $values.metadata.remote.address) }}
{{- fail "metadata.clusterFile.configMap: say the ConfigMap with FoundationDB's cluster file (the operator's is NAME-config)" }}
{{- end }}
{{- if and $values.metadata.clusterFile.configMap $values.metadata.remote.address }}
{{- fail "metadata.clusterFile.configMap and metadata.remote.address: say one of them" }}
{{- end }}
{{- if and $values.metadata.remote.address (not $values.metadata.remote.existingSecret) }}
{{- fail "metadata.remote.existingSecret: say the Secret with the token of the metadata server" }}
{{- end }}
{{- if and (not $values.logstore.token.existingSecret) (lt (len $values.logstore.token.value) 16) }}
{{- fail "logstore.token: say existingSecret, or a value of 16 characters or more" }}
{{- end }}
{{- if not (or $values.gateway.allowAnonymous $values.users.existingSecret) }}
{{- fail "users.existingSecret: say who may connect, or gateway.allowAnonymous=true to let anybody do anything" }}
{{- end }}
{{- if not (has $values.gateway.advertise.mode (list "pod" "ip" "node" "host")) }}
{{- fail "gateway.advertise.mode: pod, ip, node or host" }}
{{- end }}
{{- if eq $values.gateway.advertise.mode "host" }}
{{- if not $values.gateway.advertise.host }}
{{- fail "gateway.advertise.host: say the name that Kafka clients connect to" }}
{{- end }}
{{- if or $values.gateway.autoscaling.enabled (ne (int $values.gateway.replicas) 1) }}
{{- fail "gateway.advertise.mode=host is for one gateway: gateway.autoscaling.enabled=false, gateway.replicas=1" }}
{{- end }}
{{- end }}
{{- if and $values.gateway.tls.clientCa (not $values.gateway.tls.existingSecret) }}
{{- fail "gateway.tls.clientCa needs gateway.tls.existingSecret" }}
{{- end }}
{{- if and $values.metrics.serviceMonitor.enabled (not $values.metrics.enabled) }}
{{- fail "metrics.serviceMonitor.enabled needs metrics.enabled" }}
{{- end }}
{{- end }}

{{- define "interflow.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* How a container begins: with its own copy of the cluster file, for FoundationDB's client writes it. */}}
{{- define "interflow.seed" -}}
{{- if .Values.metadata.clusterFile.configMap -}}
cp /etc/interflow/metadata/fdb.cluster /run/interflow/fdb.cluster
{{- end }}
{{- end }}

{{/* What the containers of all roles have. */}}
{{- define "interflow.container" -}}
image: {{ include "interflow.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "interflow.environment" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: INTERFLOW_META__STORE
  {{- if .Values.metadata.remote.address }}
  value: remote:{{ .Values.metadata.remote.address }}
- name: INTERFLOW_META__TOKEN_FILE
  value: /etc/interflow/metadata/token
  {{- else }}
  value: fdb:/run/interflow/fdb.cluster
  {{- end }}
- name: INTERFLOW_LOGSTORE__TOKEN_FILE
  value: /etc/interflow/logstore/token
{{- if .Values.logstore.tls.existingSecret }}
- name: INTERFLOW_LOGSTORE__TLS_CA
  value: /etc/interflow/logstore-tls/ca.crt
- name: INTERFLOW_LOGSTORE__TLS_CERT
  value: /etc/interflow/logstore-tls/tls.crt
- name: INTERFLOW_LOGSTORE__TLS_KEY
  value: /etc/interflow/logstore-tls/tls.key
{{- end }}
- name: INTERFLOW_LOGGING__FILTER
  value: {{ .Values.log.filter | quote }}
- name: INTERFLOW_LOGGING__FORMAT
  value: {{ .Values.log.format }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "interflow.mounts" -}}
- {name: run, mountPath: /run/interflow}
- {name: metadata, mountPath: /etc/interflow/metadata, readOnly: true}
- {name: logstore-token, mountPath: /etc/interflow/logstore, readOnly: true}
{{- if .Values.logstore.tls.existingSecret }}
- {name: logstore-tls, mountPath: /etc/interflow/logstore-tls, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "interflow.volumes" -}}
- name: run
  emptyDir: {}
- name: metadata
  {{- if .Values.metadata.remote.address }}
  secret:
    secretName: {{ .Values.metadata.remote.existingSecret }}
    items: [{key: {{ .Values.metadata.remote.key }}, path: token}]
  {{- else }}
  configMap:
    name: {{ .Values.metadata.clusterFile.configMap }}
    items: [{key: {{ .Values.metadata.clusterFile.key }}, path: fdb.cluster}]
  {{- end }}
- name: logstore-token
  secret:
    secretName: {{ .Values.logstore.token.existingSecret | default (printf "%s-logstore-token" (include "interflow.name" .)) }}
    items: [{key: {{ .Values.logstore.token.key }}, path: token}]
{{- with .Values.logstore.tls.existingSecret }}
- name: logstore-tls
  secret: {secretName: {{ . }}}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Probes from within, for the admin port is on loopback: (dict "startSeconds" 600) */}}
{{- define "interflow.probes" -}}
startupProbe:
  exec: {command: [interflow-probe, /readyz]}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: {{ div .startSeconds 2 }}
readinessProbe:
  exec: {command: [interflow-probe, /readyz]}
  periodSeconds: 5
  timeoutSeconds: 5
# Not well once the journal has failed, which a start on a disk that works again cures.
livenessProbe:
  exec: {command: [interflow-probe, /healthz]}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* What pods of all roles have. */}}
{{- define "interflow.pod" -}}
serviceAccountName: {{ include "interflow.name" . }}
automountServiceAccountToken: false
# Their variables would begin with INTERFLOW_, as settings do.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "interflow.metrics" -}}
- name: metrics
  image: {{ .Values.metrics.image }}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
    runAsUser: 101
  ports:
    - {name: metrics, containerPort: {{ .Values.metrics.port }}}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    - {name: metrics, mountPath: /etc/nginx/conf.d, readOnly: true}
    - {name: metrics-tmp, mountPath: /tmp}
{{- end }}

{{/* How a Service for clients is reached. */}}
{{- define "interflow.outside" -}}
type: {{ .Values.gateway.service.type }}
{{- with .Values.gateway.service.externalTrafficPolicy }}
externalTrafficPolicy: {{ . }}
{{- end }}
{{- with .Values.gateway.service.loadBalancerSourceRanges }}
loadBalancerSourceRanges: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "interflow.metricsVolumes" -}}
- name: metrics
  configMap: {name: {{ include "interflow.name" . }}-metrics}
- name: metrics-tmp
  emptyDir: {}
{{- end }}
