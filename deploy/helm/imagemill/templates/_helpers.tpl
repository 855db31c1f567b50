{{- define "imagemill.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels of an object. Takes a dict with root and role, and pool for workers. */}}
{{- define "imagemill.labels" -}}
{{ include "imagemill.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "imagemill.selector" -}}
app.kubernetes.io/name: imagemill
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .role }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .pool }}
imagemill/pool: {{ . }}
{{- end }}
{{- end }}

{{/* A pool with the defaults of what it leaves out, as JSON. Sprig's merge would take 0 and [] for left out. */}}
{{- define "imagemill.pool" -}}
{{- $pool := deepCopy .root.Values.poolDefaults -}}
{{- range $key, $value := .values -}}
{{- $_ := set $pool $key $value -}}
{{- end -}}
{{- if gt (int $pool.minimum) (int $pool.maximum) -}}
{{- fail (printf "pools.%s has a minimum of %v pods and a maximum of %v; raise the maximum." .name $pool.minimum $pool.maximum) -}}
{{- end -}}
{{- toJson $pool -}}
{{- end }}

{{- define "imagemill.serviceAccount" -}}
{{- $account := index .root.Values.serviceAccounts .role -}}
{{- if $account.name -}}
{{ $account.name }}
{{- else if .root.Values.serviceAccounts.create -}}
{{ include "imagemill.name" .root }}-{{ .role }}
{{- else -}}
default
{{- end -}}
{{- end }}

{{/* What all pods have in common, but for volumes. */}}
{{- define "imagemill.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "imagemill.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Variables of every container; what follows in a list of a container comes over them. */}}
{{- define "imagemill.envFrom" -}}
envFrom:
  - configMapRef: {name: {{ include "imagemill.name" .root }}-settings}
{{- end }}

{{- define "imagemill.env" -}}
- name: IMAGEMILL_SECRETS_DIR
  value: /run/secrets/imagemill
{{- if .root.Values.certificateAuthorities.configMap }}
- name: IMAGEMILL_CA_FILE
  value: /etc/imagemill/{{ .root.Values.certificateAuthorities.key }}
{{- end }}
{{- end }}

{{- define "imagemill.portEnv" -}}
- {name: IMAGEMILL_METRICS_PORT, value: {{ .Values.metricsPort | quote }}}
- {name: IMAGEMILL_METRICS_HOST, value: 0.0.0.0}
{{- end }}

{{/* What the controller must know of the pools to scale them, as IMAGEMILL_POOLS. */}}
{{- define "imagemill.pools" -}}
{{- $pools := dict -}}
{{- range $name, $values := .Values.pools -}}
{{- $pool := include "imagemill.pool" (dict "root" $ "name" $name "values" $values) | fromJson -}}
{{- $_ := set $pools $name (dict "queues" $pool.queues "min" $pool.minimum "max" $pool.maximum "target_seconds" $pool.targetSeconds "cold_start_seconds" $pool.coldStartSeconds "cool_down_seconds" $pool.cooldownSeconds) -}}
{{- end -}}
{{- toJson $pools -}}
{{- end }}

{{- define "imagemill.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: secrets, mountPath: /run/secrets/imagemill, readOnly: true}
{{- if .root.Values.certificateAuthorities.configMap }}
- {name: authorities, mountPath: /etc/imagemill, readOnly: true}
{{- end }}
{{- end }}

{{/* Takes root, secret (a name, or empty for the common one), temporary (a size), and online for roles of served models. */}}
{{- define "imagemill.volumes" -}}
{{- $secret := .secret | default .root.Values.existingSecret | required "existingSecret is not set; make a secret with the key imagemill_redis_url and, without roles of your cloud, imagemill_s3_access_key and imagemill_s3_secret_key, and name it." -}}
{{- $online := .root.Values.onlineRedis.existingSecret -}}
- name: tmp
  emptyDir: {sizeLimit: {{ .temporary }}}
- name: secrets
{{- if and .online $online (ne $online $secret) }}
  projected:
    defaultMode: 0440
    sources:
      - secret: {name: {{ $secret }}}
      - secret:
          name: {{ $online }}
          items: [{key: imagemill_online_redis_url, path: imagemill_online_redis_url}]
{{- else }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
{{- end }}
{{- with .root.Values.certificateAuthorities }}
{{- if .configMap }}
- name: authorities
  configMap:
    name: {{ .configMap }}
    items: [{key: {{ .key }}, path: {{ .key }}}]
{{- end }}
{{- end }}
{{- end }}

{{/* A process that makes no progress is started again; one that is not ready yet counts for no rollout. Takes port and scheme. */}}
{{- define "imagemill.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: {{ .port }}, scheme: {{ .scheme }}}
  periodSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: {{ .port }}, scheme: {{ .scheme }}}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
readinessProbe:
  httpGet: {path: /readyz, port: {{ .port }}, scheme: {{ .scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
{{- end }}

{{/* "yes" where KEDA scales, or empty. */}}
{{- define "imagemill.scales" -}}
{{- if and .Values.autoscaling.enabled (.Capabilities.APIVersions.Has "keda.sh/v1alpha1/ScaledObject") -}}yes{{- end -}}
{{- end }}

{{/* What selects the pods of several roles. Takes root and roles. */}}
{{- define "imagemill.ofRoles" -}}
matchLabels: {{- include "imagemill.selector" (dict "root" .root) | nindent 2 }}
matchExpressions:
  - {key: app.kubernetes.io/component, operator: In, values: [{{ join ", " .roles }}]}
{{- end }}

{{/* Where the HTTP API listens in its pods. */}}
{{- define "imagemill.webPort" -}}8080{{- end }}

{{/* Names under which clients reach it: those of its Service, of a forwarded port, and web.hosts. */}}
{{- define "imagemill.webHosts" -}}
{{- $service := printf "%s-web" (include "imagemill.name" .) -}}
{{- $namespace := printf "%s.%s" $service .Release.Namespace -}}
{{- $own := list $service $namespace (printf "%s.svc" $namespace) (printf "%s.svc.%s" $namespace .Values.clusterDomain) "localhost" "127.0.0.1" -}}
{{- concat $own (.Values.web.hosts | default list) | join "," -}}
{{- end }}

{{/* "yes" where Kubernetes scales the HTTP API, or empty. */}}
{{- define "imagemill.webScales" -}}
{{- if gt (int .Values.web.maximum) (int .Values.web.minimum) -}}yes{{- end -}}
{{- end }}

{{/* The port of the S3 endpoint, which is a URL or host:port. */}}
{{- define "imagemill.s3Port" -}}
{{- $address := .Values.settings.IMAGEMILL_S3_ENDPOINT | default "" -}}
{{- $port := regexFind ":[0-9]+/?$" $address | trimPrefix ":" | trimSuffix "/" -}}
{{- if $port -}}
{{ $port }}
{{- else if hasPrefix "https://" (lower $address) -}}
443
{{- else -}}
80
{{- end -}}
{{- end }}
